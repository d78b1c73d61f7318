//! What is said to whoever asked, and with which status, where something is wrong.

use crate::detect::Undetected;
use crate::fetch::FetchError;
use crate::intake::NoPlace;
use crate::most::Most;
use crate::package::PackageError;
use crate::runtime::RuntimeError;
use crate::spool::SpoolError;
use crate::uploads::UploadError;
use dinp_common::error::ErrorChain;
use dinp_common::model::AppName;
use dinp_common::problem::Problem;
use dinp_common::store::StoreError;
use dinp_common::store::build::Refused;
use http::StatusCode;

/// A package that cannot be fetched.
pub fn fetch(error: &FetchError) -> Problem {
    if let FetchError::Ours(error) = error {
        return Problem::internal(error);
    }
    Problem::unprocessable("fetch-failed", ErrorChain(error).to_string()).with("field", "url")
}

/// A package of more bytes than are taken.
pub fn too_large(most: Most) -> Problem {
    spool(SpoolError::TooLarge(most))
}

/// A package that tells no runtime.
pub fn undetected(undetected: Undetected) -> Problem {
    match undetected {
        Undetected::None(detail) => Problem::unprocessable("package-refused", detail),
        Undetected::Several(detail) => Problem::unprocessable("runtime-unclear", detail)
            .with("field", "runtime")
            .with("hint", "name the runtime, on the command line by --runtime"),
    }
}

/// A word of the request that is not valid.
pub fn invalid(field: &'static str, error: dinp_common::model::InvalidValue) -> Problem {
    Problem::unprocessable("invalid-query", error.to_string()).with("field", field)
}

/// A database that does not do what it is asked for.
pub fn store(error: StoreError) -> Problem {
    if error.is_unavailable() {
        tracing::warn!(error = %ErrorChain(&error), "request refused, database is away");
        return Problem::unavailable("database-unavailable", "the builder cannot reach its database: try again later");
    }
    Problem::internal(&error)
}

/// A runtime that cannot be used.
pub fn runtime(error: RuntimeError) -> Problem {
    match &error {
        RuntimeError::Unknown { .. } | RuntimeError::NotAllowed(_) => {
            Problem::unprocessable("unknown-runtime", error.to_string()).with("field", "runtime")
        }
        _ => {
            tracing::error!(error = %ErrorChain(&error), "runtime cannot be used");
            let detail = format!("the runtime cannot be used, its operator has to repair it: {}", ErrorChain(&error));
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "broken-runtime", detail)
        }
    }
}

/// A build that does not begin.
pub fn refused(refused: Refused, app: &AppName, version: &str) -> Problem {
    match refused {
        Refused::VersionTaken => {
            let detail = format!(
                "version \"{version}\" of app {app} exists already or is being built, and versions are never changed"
            );
            Problem::conflict("version-exists", detail)
        }
        Refused::AppGone => Problem::not_found(format!("app {app} was deleted while the package arrived")),
    }
}

/// A package that is refused.
pub fn package(error: &PackageError) -> Problem {
    if error.is_of_the_package() {
        metrics::counter!("dinp_builder_packages_refused_total").increment(1);
        return Problem::unprocessable("package-refused", error.to_string());
    }
    Problem::internal(error)
}

/// A package that there is no place for.
pub fn no_place(error: NoPlace) -> Problem {
    let detail = error.to_string();
    match error {
        NoPlace::OfPerson(limit) | NoPlace::OfAll(limit) => {
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-packages", detail).with("limit", limit)
        }
        NoPlace::Spool(limit) => {
            Problem::new(StatusCode::INSUFFICIENT_STORAGE, "spool-full", detail).with("limit_mb", limit)
        }
    }
}

/// A package that does not arrive.
pub fn spool(error: SpoolError) -> Problem {
    let detail = ErrorChain(&error).to_string();
    match &error {
        SpoolError::TooLarge(most) => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail).with("limit", most.name())
        }
        SpoolError::Empty => Problem::unprocessable("package-refused", detail),
        SpoolError::Stalled(_) => Problem::new(StatusCode::REQUEST_TIMEOUT, "upload-stalled", detail),
        SpoolError::Receive(_) => Problem::bad_request("upload-broken", detail),
        SpoolError::Write { source, .. } => disk(source),
    }
}

/// A part that is not taken, or a package that is not whole.
pub fn upload(error: UploadError) -> Problem {
    let detail = error.to_string();
    match error {
        UploadError::WrongOffset(offset) => Problem::conflict("wrong-offset", detail).with("offset", offset),
        UploadError::Incomplete(offset, bytes) => {
            Problem::conflict("upload-incomplete", detail).with("offset", offset).with("bytes", bytes)
        }
        UploadError::TooLong(_) => Problem::unprocessable("too-long", detail),
        UploadError::Damaged(_) => Problem::unprocessable("upload-damaged", detail),
        UploadError::Stalled(_) => Problem::new(StatusCode::REQUEST_TIMEOUT, "upload-stalled", detail),
        UploadError::Broken => Problem::bad_request("upload-broken", detail),
        UploadError::Disk(error) => disk(&error),
    }
}

fn disk(error: &std::io::Error) -> Problem {
    tracing::error!(error = %ErrorChain(error), "package cannot be spooled");
    let full = error.kind() == std::io::ErrorKind::StorageFull;
    let detail = if full { "the builder's disk is full" } else { "the builder cannot write to its disk" };
    Problem::new(StatusCode::INSUFFICIENT_STORAGE, "spool-unavailable", detail)
}
