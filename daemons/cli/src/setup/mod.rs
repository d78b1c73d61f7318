//! `dinp setup`: turns a freshly installed machine into a working one.
//!
//! Each role is a list of steps ([`step`]) that look first and change only what is not as it should be, so that a second
//! run changes nothing. Packaged files are never edited: what differs goes into drop-ins.
//!
//! * [`control`]: databases, registry and all daemons that are neither agent nor router,
//! * [`member`]: a compute node or a router, from a bundle; [`server`]: a further server,
//! * [`bundle`]: the bundles, issued on the control machine,
//! * [`known_servers`]: which servers a machine knows,
//! * [`images`]: base images of the builder's runtimes, into the registry.

mod args;
mod base_images;
mod bundle;
mod control;
mod docker;
mod error;
mod files;
mod grants;
mod images;
mod known_servers;
mod member;
mod mysql;
mod redis;
mod registry;
mod server;
mod services;
mod step;
mod system;
mod tickets;
mod units;

pub use args::SetupCommand;
pub use error::SetupError;

use std::path::Path;
use step::Runner;

/// Does what the command line says.
pub async fn run(command: &SetupCommand) -> Result<(), SetupError> {
    system::need_root()?;
    match command {
        SetupCommand::Control(args) => {
            let plan = control::Plan::new(args)?;
            let mut runner = Runner::new(plan.check);
            let login = control::run(&plan, &mut runner, false).await?;
            runner.finish()?;
            plan.tell(login);
            Ok(())
        }
        SetupCommand::Single(args) => {
            let plan = control::Plan::new(args)?;
            let mut runner = Runner::new(plan.check);
            let login = control::run(&plan, &mut runner, true).await?;
            runner.finish()?;
            plan.tell(login);
            Ok(())
        }
        SetupCommand::NodeBundle(args) => bundle::print_node(args).await,
        SetupCommand::RouterBundle(args) => bundle::print_router(args).await,
        SetupCommand::Node(args) => {
            let mut runner = Runner::new(args.check);
            runner.run(member::node_steps(&bundle::read(&args.bundle)?)?).await?;
            runner.finish()
        }
        SetupCommand::Router(args) => {
            let mut runner = Runner::new(args.check);
            runner.run(member::router_steps(&bundle::read(&args.bundle)?)?).await?;
            runner.finish()
        }
        SetupCommand::ServerBundle(args) => bundle::print_server(args).await,
        SetupCommand::Server(args) => {
            let mut runner = Runner::new(args.check);
            runner.run(server::steps(&bundle::read(&args.bundle)?)?).await?;
            runner.finish()
        }
        SetupCommand::Servers(args) => {
            let mut runner = Runner::new(args.check);
            runner.run(known_servers::steps(&args.servers).await?).await?;
            runner.finish()
        }
        SetupCommand::BaseImages(args) => {
            let mut runner = Runner::new(args.check);
            match &args.directory {
                Some(directory) => runner.run(images::steps(directory, &args.only)?).await?,
                None => {
                    runner.run(base_images::steps(&args.only).await?).await?;
                    match args.check && runner.is_any_due() {
                        true => runner.later("images in the registry"),
                        false => runner.run(images::steps(Path::new(base_images::MADE), &args.only)?).await?,
                    }
                }
            }
            runner.finish()
        }
    }
}
