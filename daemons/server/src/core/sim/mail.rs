//! The network between the leader and everybody else: late, lost, doubled and overtaking messages.

use super::agent::{Kind, SentOrders};
use super::world::World;
use dinp_common::api::agent::{Report, ReportReply};
use dinp_common::api::router::RouterReport;
use dinp_common::model::NodeName;

/// What the network does to messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct Network {
    pub loss_percent: u64,
    pub double_percent: u64,
    pub most_delay_ms: u64,
    /// Delays are drawn anew for each message, so that later ones overtake.
    pub reorder: bool,
}

#[derive(Debug, Clone)]
pub enum Message {
    Report(NodeName, Box<Report>),
    Reply(NodeName, ReportReply),
    Orders(NodeName, Box<SentOrders>),
    Router(Box<RouterReport>),
}

impl World {
    pub fn delay(&mut self) -> u64 {
        match self.network.reorder {
            true => self.dice.below(self.network.most_delay_ms + 1),
            false => self.network.most_delay_ms,
        }
    }

    pub fn mail(&mut self, message: Message) {
        let copies = 1 + u64::from(self.dice.percent(self.network.double_percent));
        for _ in 0..copies {
            if self.dice.percent(self.network.loss_percent) {
                continue;
            }
            let due = self.now + self.delay();
            self.mailed += 1;
            self.mail.push((due, self.mailed, message.clone()));
        }
    }

    pub fn deliver(&mut self) {
        let now = self.now;
        let mut due: Vec<_> = Vec::new();
        self.mail.retain(|(at, number, message)| {
            if *at <= now {
                due.push((*at, *number, message.clone()));
            }
            *at > now
        });
        due.sort_by_key(|(at, number, _)| (*at, *number));
        for (_, _, message) in due {
            self.news |= matches!(message, Message::Report(..) | Message::Router(_));
            match message {
                Message::Report(name, report) => {
                    let wall = i64::try_from(now).unwrap();
                    let reply = self.leader.reign.report(&name, &report, now, wall);
                    self.mail(Message::Reply(name, reply));
                }
                Message::Reply(name, reply) => {
                    if let Some(agent) = self.agents.get_mut(&name).filter(|agent| agent.up && !agent.cut_off) {
                        agent.needs_full |= reply.resync;
                    }
                }
                Message::Orders(name, sent) => {
                    let (database, broken, flaky) = (&self.database, &self.broken, &self.flaky);
                    let Some(agent) = self.agents.get_mut(&name).filter(|agent| agent.up && !agent.cut_off) else {
                        continue;
                    };
                    agent.take(
                        &sent,
                        |run| {
                            let spec = database.apps.get(&run.app).and_then(|app| app.releases.get(&run.release));
                            Kind {
                                memory_mb: spec.map_or(128, |spec| spec.resources.memory_mb),
                                broken: broken.contains(&run.release),
                                flaky: flaky.contains(&run.release),
                            }
                        },
                        now,
                    );
                }
                Message::Router(report) => {
                    self.known_routers.insert(report.router.clone());
                    self.leader.reign.router_report(&report, now);
                }
            }
        }
    }
}
