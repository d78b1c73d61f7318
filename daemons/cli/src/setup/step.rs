//! A set-up is a list of steps, each of which looks first and changes only what is not as it should be.

use super::error::SetupError;
use futures_util::future::LocalBoxFuture;

/// Work of a step.
pub type Task<'a, T> = LocalBoxFuture<'a, Result<T, SetupError>>;

/// What a step found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Ok,
    /// To be changed; says what.
    Due(String),
}

impl State {
    /// Due for this reason.
    pub fn due(what: impl Into<String>) -> Self {
        Self::Due(what.into())
    }
}

/// One thing that is to be so.
pub trait Step {
    /// What it is about.
    fn name(&self) -> String;
    /// Looks, and changes nothing.
    fn check(&self) -> Task<'_, State>;
    /// Makes it so.
    fn apply(&self) -> Task<'_, ()>;
}

/// Steps in their order.
pub type Steps = Vec<Box<dyn Step>>;

/// Runs steps and prints one line for each.
#[derive(Debug)]
pub struct Runner {
    check_only: bool,
    due: usize,
}

impl Runner {
    /// With `check_only` nothing is changed.
    pub fn new(check_only: bool) -> Self {
        Self { check_only, due: 0 }
    }

    /// Runs steps until one fails.
    pub async fn run(&mut self, steps: Steps) -> Result<(), SetupError> {
        for step in steps {
            let name = step.name();
            let failed = |source| SetupError::Step { step: name.clone(), source: Box::new(source) };
            match step.check().await {
                Ok(State::Ok) => println!("ok            {name}"),
                Ok(State::Due(what)) if self.check_only => {
                    self.due += 1;
                    println!("would change  {name}: {what}");
                }
                Ok(State::Due(what)) => {
                    step.apply().await.map_err(failed)?;
                    self.due += 1;
                    println!("changed       {name}: {what}");
                }
                // What comes after a change that was not made cannot always be looked at.
                Err(_) if self.check_only && self.due > 0 => {
                    self.due += 1;
                    println!("would change  {name}: depends on the changes above");
                }
                Err(source) => return Err(failed(source)),
            }
        }
        Ok(())
    }

    /// Whether a step was not as it should be.
    pub fn is_any_due(&self) -> bool {
        self.due > 0
    }

    /// Notes steps that can only be told once those before them were made.
    pub fn later(&mut self, what: &str) {
        self.due += 1;
        println!("would change  {what}: depends on the changes above");
    }

    /// The end of all steps: with `--check` an error where something is to be done.
    pub fn finish(self) -> Result<(), SetupError> {
        match self.due {
            0 => println!("all is as it should be"),
            due if self.check_only => return Err(SetupError::Due(due)),
            due => println!("{due} changed"),
        }
        Ok(())
    }
}
