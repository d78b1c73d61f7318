//! Bodies that no proxy can hold in memory: what a GiB costs in CPU time, and how much memory it takes.

use crate::cases::{DOWN, UP};
use crate::cpu::warm;
use crate::ground::Ground;
use crate::load::drive;
use crate::proxies::PROXIES;
use crate::report::{Figures, Metric};

const CPU: Metric = Metric { name: "CPU time", unit: "ms", targets: &[("haproxy", 1.0), ("nginx", 1.0)] };
const MEMORY: Metric = Metric { name: "memory at most", unit: "MiB", targets: &[] };

pub(crate) async fn measure(ground: &Ground) -> Figures {
    let proxies = ground.start_all().await;
    for proxy in &proxies {
        warm(proxy).await;
    }
    let mut figures = Figures::new("bodies that are streamed", &PROXIES);
    for case in [DOWN, UP] {
        for round in 0..=ground.rounds {
            for proxy in &proxies {
                proxy.forget_highest();
                let before = proxy.cpu();
                drive(&proxy.address, case).await.unwrap_or_else(|| panic!("{} failed at {}", proxy.name, case.name));
                let millis = (proxy.cpu() - before).as_secs_f64() * 1e3;
                if round > 0 {
                    figures.add(case.name, CPU, proxy.name, millis);
                    let most = proxy.highest_resident() / 1_024.0;
                    figures.add(case.name, MEMORY, proxy.name, most);
                }
            }
        }
    }
    figures
}
