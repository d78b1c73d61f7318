//! On which suite of its base an app is built: on that of its last build, until somebody moves it. Another suite has another
//! Python, and other libraries.

use crate::problems;
use crate::runtime::Runtime;
use crate::service::Service;
use dinp_common::api::builder::BuildQuery;
use dinp_common::error::ErrorChain;
use dinp_common::model::ImageRef;
use dinp_common::problem::Problem;
use dinp_common::store;
use mysql_async::Conn;

/// The base of a build where it is not the runtime's own, and what to say of that.
pub async fn base(
    service: &Service,
    conn: &mut Conn,
    query: &BuildQuery,
    runtime: &Runtime,
) -> Result<Option<(ImageRef, String)>, Problem> {
    let own = runtime.base().filter(|base| base.registry() == service.registry.address());
    if let Some(suite) = &query.suite {
        return named(service, suite, runtime, own).await.map(Some);
    }
    let Some(own) = own else { return Ok(None) };
    let last = store::build::last_base(conn, query.app.as_str(), runtime.name.as_str(), query.app_created_at).await;
    let last: Option<ImageRef> = last.map_err(problems::store)?.and_then(|base| base.parse().ok());
    let Some(last) = last.filter(|last| last.repository() == own.repository() && last.tag() != own.tag()) else {
        return Ok(None);
    };
    let Ok(base) = service.runtimes.bases().now(&last) else { return Ok(None) };
    match service.registry.digest(&base).await {
        Ok(Some(_)) => {
            let (old, new) = (last.tag().unwrap_or_default(), own.tag().unwrap_or_default());
            let note = format!("stays on {old}, as the last build of the app: `--suite {new}` moves it");
            Ok(Some((base, note)))
        }
        Ok(None) => Ok(None),
        // The build asks again, and its record says what is wrong.
        Err(error) => {
            tracing::warn!(error = %ErrorChain(&error), "registry cannot be asked for a base");
            Ok(None)
        }
    }
}

async fn named(
    service: &Service,
    suite: &str,
    runtime: &Runtime,
    own: Option<&ImageRef>,
) -> Result<(ImageRef, String), Problem> {
    let refused = |detail: String| Problem::unprocessable("invalid-query", detail).with("field", "suite");
    let Some(own) = own else {
        return Err(refused(format!("runtime {} has no base of the platform that could be of a suite", runtime.name)));
    };
    let base = own.with_tag(suite).and_then(|base| service.runtimes.bases().pinned(base));
    let base = base.map_err(|error| refused(error.to_string()))?;
    let found = service.registry.digest(&base).await;
    let found = found.map_err(|error| Problem::unavailable("registry-unavailable", ErrorChain(&error).to_string()))?;
    match found {
        Some(_) => Ok((base, format!("on {suite}, as asked for"))),
        None => {
            Err(refused(format!("there is no base image {base}: an operator makes it with `dinp setup base-images`")))
        }
    }
}
