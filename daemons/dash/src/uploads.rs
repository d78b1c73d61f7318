//! Packages that arrive in parts, handed on to the builder: it knows whose each is.

use crate::backend::{self, BUILDER, LIMIT};
use crate::builds::Upload;
use crate::{Caller, Dash};
use axum::body::Body;
use dinp_common::api::builder::{BuildView, UploadBegin, UploadView};
use dinp_common::problem::Problem;
use dinp_common::store::app::AppRow;
use http::{Method, header};
use serde::de::DeserializeOwned;

impl Dash {
    /// Begins to take a package of so many bytes, or goes on with one of the same bytes that broke off.
    pub(crate) async fn begin_upload(
        &self,
        caller: &Caller,
        row: &AppRow,
        upload: &Upload,
        bytes: u64,
        sha256: Option<String>,
    ) -> Result<UploadView, Problem> {
        self.room(caller, row, upload).await?;
        let begin = UploadBegin { bytes, sha256, build: self.order(caller, row, upload) };
        self.builder.post("/v1/uploads", &begin, LIMIT).await.map_err(|error| backend::problem(error, &BUILDER))
    }

    /// An upload of the caller's.
    pub(crate) async fn find_upload(&self, caller: &Caller, id: &str) -> Result<UploadView, Problem> {
        self.ask_of_upload(caller, Method::GET, id, "", None).await
    }

    /// Hands the next part on.
    pub(crate) async fn append_to_upload(
        &self,
        caller: &Caller,
        id: &str,
        offset: u64,
        part: Body,
    ) -> Result<UploadView, Problem> {
        self.ask_of_upload(caller, Method::PATCH, id, "", Some((offset, part))).await
    }

    /// Has an upload built that is whole.
    pub(crate) async fn build_upload(
        &self,
        caller: &Caller,
        row: &AppRow,
        upload: &UploadView,
    ) -> Result<BuildView, Problem> {
        // What is asked for again because an answer was lost is no further build.
        if upload.build.is_none() {
            self.check_new_build(caller, row).await?;
            if self.upload_left(caller, row).await? < upload.bytes {
                return Err(self.uploads_exceeded(row));
            }
        }
        self.ask_of_upload(caller, Method::POST, &upload.id, "/build", None).await
    }

    /// Forgets an upload of the caller's.
    pub(crate) async fn forget_upload(&self, caller: &Caller, id: &str) -> Result<(), Problem> {
        let request = self.upload_request(caller, Method::DELETE, id, "")?;
        backend::head(request, Some(LIMIT), &BUILDER).await.map(drop)
    }

    /// What the builder says; a part, and what is done with a package, may take their time.
    async fn ask_of_upload<R: DeserializeOwned>(
        &self,
        caller: &Caller,
        method: Method,
        id: &str,
        what: &str,
        part: Option<(u64, Body)>,
    ) -> Result<R, Problem> {
        let limit = (method == Method::GET).then_some(LIMIT);
        let mut request = self.upload_request(caller, method, id, what)?;
        if let Some((offset, part)) = part {
            request = request
                .query(&[("offset", offset)])
                .header(header::CONTENT_TYPE, "application/octet-stream")
                .body(reqwest::Body::wrap_stream(part.into_data_stream()));
        }
        let answer = backend::head(request, limit, &BUILDER).await?;
        answer.json().await.map_err(|error| Problem::internal(&error))
    }

    fn upload_request(
        &self,
        caller: &Caller,
        method: Method,
        id: &str,
        what: &str,
    ) -> Result<reqwest::RequestBuilder, Problem> {
        if id.is_empty() || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Problem::not_found("there is no such upload"));
        }
        let request = self.builder.request(method, &format!("/v1/uploads/{id}{what}"));
        Ok(request.map_err(|error| backend::problem(error, &BUILDER))?.query(&[("user", caller.name())]))
    }
}
