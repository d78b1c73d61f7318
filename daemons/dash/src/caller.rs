//! Who calls: an access token, looked up at uic and believed for a short while; while uic or its database is away, those
//! hold that it has confirmed lately.

use crate::Dash;
use crate::backend;
use dinp_common::api::uic::{Introspect, Introspection, PlatformRole, UserInfo};
use dinp_common::api::unix_millis;
use dinp_common::auth::{SecretHash, secret_hash};
use dinp_common::problem::Problem;
use dinp_common::store::app::Visible;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest wait for uic.
const LIMIT: Duration = Duration::from_secs(5);
/// How long a token is believed that uic cannot be asked about: people must see how the cluster is while it is in trouble.
const HOLD: Duration = Duration::from_secs(3600);
/// How long uic is not asked again then.
const HOLD_OFF: Duration = Duration::from_secs(5);
/// Most tokens that are remembered.
const MAX_TOKENS: usize = 10_000;

/// The person who made a request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who it is.
    pub user: Arc<UserInfo>,
    /// The access token, for calls to uic in the person's name.
    pub token: dinp_common::credentials::Secret,
    /// Where the request came from.
    pub address: String,
    team_names: Arc<[String]>,
}

impl Caller {
    fn new(user: Arc<UserInfo>, token: &str, address: String) -> Self {
        let team_names = user.teams.iter().map(|membership| membership.team.clone()).collect();
        Self { user, token: dinp_common::credentials::Secret::new(token), address, team_names }
    }

    /// Name of the person.
    pub fn name(&self) -> &str {
        &self.user.name
    }

    /// The apps that the person sees.
    pub fn visible(&self) -> Visible<'_> {
        if self.user.role >= PlatformRole::Operator {
            return Visible::All;
        }
        Visible::Of { user: &self.user.name, teams: &self.team_names }
    }
}

#[derive(Clone)]
struct Known {
    user: Arc<UserInfo>,
    /// Believed until then without asking.
    until: Instant,
    /// Believed until then where nobody can be asked.
    hold_until: Instant,
}

/// What uic has said about tokens lately. Only good tokens are kept.
#[derive(Default)]
pub(crate) struct Tokens {
    known: Mutex<HashMap<SecretHash, Known>>,
}

impl Tokens {
    fn get(&self, hash: &SecretHash, now: Instant) -> Option<Arc<UserInfo>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(hash).filter(|known| now < known.until).map(|known| known.user.clone())
    }

    fn put(&self, hash: SecretHash, entry: Known, now: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_TOKENS {
            known.retain(|_, known| now < known.hold_until);
        }
        if known.len() >= MAX_TOKENS {
            known.retain(|_, known| now < known.until);
        }
        if known.len() < MAX_TOKENS {
            known.insert(hash, entry);
        }
    }

    /// What was known lately of a token that uic cannot be asked about now.
    fn hold(&self, hash: &SecretHash, now: Instant) -> Option<Arc<UserInfo>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get_mut(hash).filter(|known| now < known.hold_until)?;
        known.until = (now + HOLD_OFF).min(known.hold_until);
        Some(known.user.clone())
    }

    /// Has uic asked about a token at its next use; what is known of it holds if uic cannot be asked.
    pub(crate) fn ask_again(&self, token: &str) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get_mut(&secret_hash(token)) {
            known.until = Instant::now();
        }
    }

    /// Forgets one token.
    pub(crate) fn forget(&self, token: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&secret_hash(token));
    }

    /// Forgets all: somebody's roles have changed.
    pub(crate) fn forget_all(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Dash {
    /// The person whose access token this is; 401 if it is not good, 503 if that cannot be told.
    pub(crate) async fn caller(&self, token: &str, address: String) -> Result<Caller, Problem> {
        let hash = secret_hash(token);
        if let Some(user) = self.tokens.get(&hash, Instant::now()) {
            return Ok(Caller::new(user, token, address));
        }
        let body = Introspect { token: token.to_owned() };
        let answer = self.uic.post::<_, Introspection>("/v1/introspect", &body, LIMIT).await;
        let answer = match answer.map_err(|error| backend::problem(error, &backend::UIC)) {
            Ok(answer) => answer,
            Err(problem) if problem.status == 503 => {
                let user = self.tokens.hold(&hash, Instant::now()).ok_or(problem)?;
                tracing::debug!(user = user.name, "a token is accepted from memory: uic cannot be asked");
                return Ok(Caller::new(user, token, address));
            }
            Err(problem) => return Err(problem),
        };
        let Some(user) = answer.user.filter(|user| answer.active && !user.suspended) else {
            self.tokens.forget(token);
            return Err(Problem::unauthorized("the sign-on has ended; sign in again"));
        };
        let user = Arc::new(user);
        let left = answer.expires_at.map_or(i64::MAX, |at| at - unix_millis());
        let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
        let now = Instant::now();
        let until = now + left.min(Duration::from_secs(self.config.token_cache_secs));
        self.tokens.put(hash, Known { user: user.clone(), until, hold_until: now + left.min(HOLD) }, now);
        Ok(Caller::new(user, token, address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(now: Instant) -> Known {
        let user = UserInfo { name: "anna".to_owned(), role: PlatformRole::User, teams: Vec::new(), suspended: false };
        Known { user: Arc::new(user), until: now + Duration::from_secs(10), hold_until: now + HOLD }
    }

    #[test]
    fn a_token_that_is_asked_about_again_holds_on_while_uic_is_away() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let hash = secret_hash("token");
        tokens.put(hash, known(now), now);
        tokens.ask_again("token");
        let later = Instant::now();
        assert!(tokens.get(&hash, later).is_none());
        assert!(tokens.hold(&hash, later).is_some());
        tokens.forget("token");
        assert!(tokens.hold(&hash, later).is_none());
    }

    #[test]
    fn a_full_list_makes_room_with_what_holds_no_more() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let hash = |number: usize| secret_hash(&number.to_string());
        for number in 0..MAX_TOKENS {
            let entry = known(now);
            let hold_until = if number == 0 { now } else { entry.hold_until };
            tokens.put(hash(number), Known { until: now, hold_until, ..entry }, now);
        }
        tokens.put(hash(MAX_TOKENS), known(now), now);
        assert!(tokens.get(&hash(MAX_TOKENS), now).is_some());
        assert!(tokens.hold(&hash(0), now).is_none());
        assert!(tokens.hold(&hash(1), now).is_some(), "what still holds stays");
    }
}
