//! Pages.
use crate::Dash;
use std::sync::Arc;
pub(crate) fn router(dash: Arc<Dash>) -> axum::Router { let _ = dash; axum::Router::new() }
