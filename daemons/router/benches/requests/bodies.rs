//! Bodies that no proxy can hold in memory: what a GiB costs in CPU time, and how much memory it takes.

use crate::cases::{DOWN, UP};
use crate::cpu::warm;
use crate::ground::Ground;
use crate::load::drive;
use crate::proxies::PROXIES;
use crate::report::Figures;

pub(crate) async fn measure(ground: &Ground) -> Figures {
    let proxies = ground.start_all().await;
    for proxy in &proxies {
        warm(proxy).await;
    }
    let mut figures = Figures::new("of a large body", &PROXIES);
    for case in [DOWN, UP] {
        for round in 0..=ground.rounds {
            for proxy in &proxies {
                proxy.forget_highest();
                let before = proxy.cpu();
                drive(&proxy.address, case).await.unwrap_or_else(|| panic!("{} failed at {}", proxy.name, case.name));
                let millis = (proxy.cpu() - before).as_secs_f64() * 1e3;
                if round > 0 {
                    figures.add(&format!("{}, ms of CPU", case.name), proxy.name, millis);
                    let most = proxy.highest_resident() / 1_024.0;
                    figures.add(&format!("{}, MiB of memory at most", case.name), proxy.name, most);
                }
            }
        }
    }
    figures
}
