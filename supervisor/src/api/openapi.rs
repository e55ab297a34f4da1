//! `GET /openapi.json`: the API described. What is served was [`written`] from `table`.

#[cfg(test)]
pub(crate) mod table;

use axum::Json;
use serde_json::Value;

use crate::written;

/// The document.
pub(super) async fn document() -> Json<Value> {
    Json(written::document(written::OPENAPI))
}
