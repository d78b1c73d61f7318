//! SIGTERM, without a library: the handler shuts the listening socket down, and accepting ends.

use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// Whether the process was told to stop.
pub static STOPPING: AtomicBool = AtomicBool::new(false);
static LISTENER: AtomicI32 = AtomicI32::new(-1);

const SIGTERM: i32 = 15;
const SHUT_RDWR: i32 = 2;

unsafe extern "C" {
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    fn shutdown(socket: i32, how: i32) -> i32;
}

extern "C" fn terminate(_: i32) {
    STOPPING.store(true, Ordering::SeqCst);
    // SAFETY: shutdown(2) may be called in a signal handler, and takes any number.
    unsafe { shutdown(LISTENER.load(Ordering::SeqCst), SHUT_RDWR) };
}

/// From now on SIGTERM ends the accepting of this listener.
pub fn on_terminate(listener: &TcpListener) {
    LISTENER.store(listener.as_raw_fd(), Ordering::SeqCst);
    // SAFETY: the handler does only what handlers may do.
    unsafe { signal(SIGTERM, terminate) };
}
