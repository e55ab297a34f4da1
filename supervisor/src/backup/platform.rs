//! A store at the platform's API (`wire/openapi/platform.json`): objects under `/tasks/{id}/backups/{kind}/{name}`, and
//! under `/tasks/{id}/workspace` the tasks whose objects may be read.
//!
//! The token is put in here and nowhere else; messages name statuses and objects only.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use object_store::client::{HttpError, HttpRequestBody};
use serde::Deserialize;

use super::connector::Connector;
use super::manifest::check_task;
use super::objects::{Listed, MAX_LISTED, ObjectError, OpenError, Put};
use crate::config::Secret;
use crate::config::settings::Backup;
use crate::config::values::StoreKind;
use crate::rotated::Rotated;

/// Name under which the settings' environment holds the token.
pub const TOKEN: &str = "WHIM_INTERNAL_API_TOKEN";
/// Most characters of a refusal's own words.
const SHOWN: usize = 200;

/// The store's settings with the platform's newest token, where the platform is the store.
#[must_use]
pub fn renewed(settings: &Backup, rotated: &Rotated) -> Backup {
    let mut settings = settings.clone();
    if let (StoreKind::Backend, Some(token)) = (settings.kind, rotated.token()) {
        settings.environment.insert(TOKEN.to_owned(), token);
    }
    settings
}

/// See the module's header.
#[derive(Debug)]
pub struct Platform {
    connector: Connector,
    /// Without a slash at its end.
    base: String,
    authorization: HeaderValue,
}

#[derive(Deserialize)]
struct Page {
    objects: Vec<Object>,
    more: bool,
}

#[derive(Deserialize)]
struct Tasks {
    tasks: Vec<String>,
    more: bool,
}

#[derive(Deserialize)]
struct Object {
    name: String,
    bytes: u64,
    modified: Timestamp,
}

impl Platform {
    /// # Errors
    /// [`OpenError`] when the URL or the token cannot be used.
    pub fn new(url: &str, token: Option<&Secret>, connector: Connector) -> Result<Self, OpenError> {
        let base = url.trim_end_matches('/');
        let parsed: Uri = base.parse().map_err(|_| OpenError::Url)?;
        if parsed.authority().is_none() || parsed.query().is_some() {
            return Err(OpenError::Url);
        }
        let token = token.ok_or_else(|| OpenError::Settings(format!("{TOKEN} is missing")))?;
        let unusable = |_| OpenError::Settings("the token cannot stand in a header".to_owned());
        let mut authorization =
            HeaderValue::try_from(format!("Bearer {}", token.expose())).map_err(unusable)?;
        authorization.set_sensitive(true);
        Ok(Self {
            connector,
            base: base.to_owned(),
            authorization,
        })
    }

    pub(super) async fn put(&self, name: &str, content: Bytes) -> Result<Put, ObjectError> {
        let uri = self.uri(name)?;
        let (status, said) = self
            .call("writing", Method::PUT, &uri, name, content)
            .await?;
        match status {
            StatusCode::PRECONDITION_FAILED => Ok(Put::Exists),
            status if status.is_success() => Ok(Put::Written),
            status => Err(refused("writing", name, status, &said)),
        }
    }

    pub(super) async fn get(&self, name: &str, limit: u64) -> Result<Bytes, ObjectError> {
        let uri = self.uri(name)?;
        let (status, content) = self
            .call("reading", Method::GET, &uri, name, Bytes::new())
            .await?;
        match status {
            StatusCode::OK if content.len() as u64 > limit => Err(ObjectError::TooLarge {
                object: name.to_owned(),
                limit,
            }),
            StatusCode::OK => Ok(content),
            StatusCode::NOT_FOUND => Err(ObjectError::NotFound {
                object: name.to_owned(),
            }),
            status => Err(refused("reading", name, status, &content)),
        }
    }

    pub(super) async fn delete(&self, name: &str) -> Result<(), ObjectError> {
        let uri = self.uri(name)?;
        let (status, said) = self
            .call("removing", Method::DELETE, &uri, name, Bytes::new())
            .await?;
        if status.is_success() || status == StatusCode::NOT_FOUND {
            return Ok(());
        }
        Err(refused("removing", name, status, &said))
    }

    /// From the listing: the API tells nothing of a single object without its content.
    pub(super) async fn exists(&self, name: &str) -> Result<bool, ObjectError> {
        let missing = || failed("naming", name, "it has no directory".to_owned());
        let (prefix, own) = name.rsplit_once('/').ok_or_else(missing)?;
        // The greatest name below it that can be had by taking away: nearly always it is then the first of the page.
        let mut before = own.chars();
        before.next_back();
        let (page, _) = self.page(prefix, Some(before.as_str())).await?;
        Ok(page.iter().any(|object| object.name == name))
    }

    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<Listed>, ObjectError> {
        let mut found: Vec<Listed> = Vec::new();
        loop {
            let after = found.last().map(|last| {
                let name = last.name.rsplit('/').next().unwrap_or_default();
                name.to_owned()
            });
            let (page, more) = self.page(prefix, after.as_deref()).await?;
            found.extend(page);
            if found.len() > MAX_LISTED {
                return Err(ObjectError::TooMany {
                    prefix: prefix.to_owned(),
                });
            }
            if !more {
                return Ok(found);
            }
        }
    }

    /// Tasks of the workspace of `own`, which has backups as they have; at most [`MAX_LISTED`].
    pub(super) async fn tasks(&self, own: &str) -> Result<Vec<String>, ObjectError> {
        let base = format!("{}/tasks/{own}/workspace", self.base);
        let mut found: Vec<String> = Vec::new();
        loop {
            let uri = match found.last() {
                Some(after) => format!("{base}?after={after}"),
                None => base.clone(),
            };
            let (status, page) = self
                .call("listing", Method::GET, &uri, "tasks", Bytes::new())
                .await?;
            if !status.is_success() {
                return Err(refused("listing", "tasks", status, &page));
            }
            let page: Tasks = serde_json::from_slice(&page).map_err(|error| {
                let message = format!("the answer is not understood: {error}");
                failed("listing", "tasks", message)
            })?;
            // They become parts of addresses; and a page that does not go on would be asked for without end.
            let good = |task: &String| {
                check_task(task).is_ok() && found.last().is_none_or(|last| task > last)
            };
            if !page.tasks.iter().all(good) || !page.tasks.is_sorted() {
                let message = "the answer has names that are none, or are not above the last";
                return Err(failed("listing", "tasks", message.to_owned()));
            }
            let more = page.more && !page.tasks.is_empty();
            found.extend(page.tasks);
            if found.len() > MAX_LISTED {
                return Err(ObjectError::TooMany {
                    prefix: "tasks".to_owned(),
                });
            }
            if !more {
                return Ok(found);
            }
        }
    }

    /// A page of a listing, and whether there are others.
    async fn page(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<(Vec<Listed>, bool), ObjectError> {
        let base = self.uri(prefix)?;
        let uri = after.map_or_else(|| base.clone(), |after| format!("{base}?after={after}"));
        let (status, page) = self
            .call("listing", Method::GET, &uri, prefix, Bytes::new())
            .await?;
        if !status.is_success() {
            return Err(refused("listing", prefix, status, &page));
        }
        let page: Page = serde_json::from_slice(&page).map_err(|error| {
            failed(
                "listing",
                prefix,
                format!("the answer is not understood: {error}"),
            )
        })?;
        let more = page.more && !page.objects.is_empty();
        let listed = page.objects.into_iter().map(|object| Listed {
            name: format!("{prefix}/{}", object.name),
            bytes: object.bytes,
            modified: object.modified,
        });
        Ok((listed.collect(), more))
    }

    /// `tasks/<task>/<kind>/<name>` as the API has it.
    fn uri(&self, name: &str) -> Result<String, ObjectError> {
        let parts = name
            .strip_prefix("tasks/")
            .and_then(|rest| rest.split_once('/'));
        let (task, rest) = parts.ok_or_else(|| ObjectError::Failed {
            action: "naming",
            object: name.to_owned(),
            message: "the platform's API tells of one task only; name it".to_owned(),
        })?;
        Ok(format!("{}/tasks/{task}/backups/{rest}", self.base))
    }

    async fn call(
        &self,
        action: &'static str,
        method: Method,
        uri: &str,
        object: &str,
        content: Bytes,
    ) -> Result<(StatusCode, Bytes), ObjectError> {
        let mut request = Request::builder()
            .uri(uri)
            .header(header::AUTHORIZATION, self.authorization.clone())
            .header(
                header::USER_AGENT,
                concat!("whim/", env!("CARGO_PKG_VERSION")),
            );
        if method == Method::PUT {
            request = request
                .header(header::IF_NONE_MATCH, "*")
                .header(header::CONTENT_TYPE, "application/octet-stream");
        }
        let request = request
            .method(method)
            .body(HttpRequestBody::from(content))
            .map_err(|error| failed(action, object, error.to_string()))?;
        let broken = |error: &HttpError| {
            let error: &(dyn std::error::Error + 'static) = error;
            failed(action, object, super::objects::chain(error))
        };
        let answer = self
            .connector
            .call(request)
            .await
            .map_err(|error| broken(&error))?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(|error| broken(&error))?;
        Ok((head.status, body.to_bytes()))
    }
}

fn failed(action: &'static str, object: &str, message: String) -> ObjectError {
    ObjectError::Failed {
        action,
        object: object.to_owned(),
        message,
    }
}

/// The platform's own words, if it has any, cut and without control characters.
fn refused(action: &'static str, object: &str, status: StatusCode, said: &[u8]) -> ObjectError {
    let problem: serde_json::Value = serde_json::from_slice(said).unwrap_or_default();
    let words = ["detail", "title"]
        .iter()
        .find_map(|name| problem.get(name)?.as_str());
    let words: String = words
        .unwrap_or_default()
        .chars()
        .filter(|letter| !letter.is_control())
        .take(SHOWN)
        .collect();
    ObjectError::Failed {
        action,
        object: object.to_owned(),
        message: format!("the platform answered {status} {words}")
            .trim_end()
            .to_owned(),
    }
}
