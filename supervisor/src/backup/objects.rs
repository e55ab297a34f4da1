//! A place that holds objects, by URL: a directory, S3 and what speaks like it, GCS, Azure, the platform.
//!
//! Objects are written once and never changed: every put is on the condition that there is no such object yet, which is
//! all the coordination that containers sharing a place need. A put that was acknowledged is durable.
//!
//! Credentials come from the container's variables as the settings hold them; nothing here reads the environment.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, RetryConfig};
use url::Url;
use whim_proxies::http::dial::DialError;

use super::connector::{Connector, DEADLINE};
use super::platform::{self, Platform};
use crate::config::settings::Backup;
use crate::config::values::StoreKind;
use crate::config::{Secret, Variables, redact};

/// Most objects that one listing tells of; a task has far fewer.
pub const MAX_LISTED: usize = 1_000_000;
/// For each step of connecting to a store.
const CONNECT: Duration = Duration::from_secs(10);
/// The library's own retries, for what a store answers in passing; the engine retries longer.
const RETRIES: usize = 2;
/// For a call with its retries.
const CALL: Duration = Duration::from_secs(90);
/// What of an error's text is shown.
const SHOWN: usize = 400;

/// Why a place cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the backup's URL is no store whim knows")]
    Url,
    #[error("{}: {source}", path.display())]
    Directory {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the backup's store: {0}")]
    Settings(String),
    #[error("the way to the backup's store: {0}")]
    Dial(#[from] DialError),
}

/// Why an object was not written, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    #[error("{object} is not in the store")]
    NotFound { object: String },
    #[error("{object} has more than {limit} bytes")]
    TooLarge { object: String, limit: u64 },
    #[error("the listing of {prefix} has more than {MAX_LISTED} objects")]
    TooMany { prefix: String },
    #[error("{action} {object}: {message}")]
    Failed {
        action: &'static str,
        object: String,
        message: String,
    },
}

/// What a put found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    Written,
    /// There is such an object already; it was left as it is.
    Exists,
}

/// An object as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    pub bytes: u64,
    /// By the store's clock.
    pub modified: Timestamp,
}

/// See the module's header. Clones share it.
#[derive(Clone, Debug)]
pub struct Objects {
    way: Way,
    #[cfg(test)]
    watch: Option<Watch>,
}

/// Called with what is done and the object's name before it is done; what it refuses is not.
#[cfg(test)]
pub(super) type Watching = dyn Fn(&str, &str) -> bool + Send + Sync;

/// One that watches.
#[cfg(test)]
#[derive(Clone)]
pub(super) struct Watch(pub(super) Arc<Watching>);

#[cfg(test)]
impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

#[derive(Clone, Debug)]
enum Way {
    Library(Library),
    Platform(Arc<Platform>),
}

/// What the library reaches.
#[derive(Clone, Debug)]
struct Library {
    library: Arc<dyn ObjectStore>,
    /// Before every name.
    prefix: Path,
}

impl Objects {
    /// The place that the settings name. A directory is made; nothing else is touched before the first call.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(settings: &Backup, variables: &Variables) -> Result<Self, OpenError> {
        let url = Url::parse(settings.url.expose()).map_err(|_| OpenError::Url)?;
        let connector = || crate::outbound::dialer(variables, CONNECT).map(Connector::new);
        let retry = RetryConfig {
            max_retries: RETRIES,
            retry_timeout: CALL,
            ..RetryConfig::default()
        };
        let bucket = url.host_str().unwrap_or_default();
        let given = &settings.environment;
        let library: Arc<dyn ObjectStore> = match settings.kind {
            StoreKind::File => {
                let path = url.to_file_path().map_err(|()| OpenError::Url)?;
                return Self::directory(path);
            }
            StoreKind::S3 => {
                let mut builder = AmazonS3Builder::new();
                for (key, value) in keys::<AmazonS3ConfigKey>(given) {
                    builder = builder.with_config(key, value.expose());
                }
                let builder = builder
                    .with_bucket_name(bucket)
                    .with_retry(retry)
                    .with_http_connector(connector()?);
                Arc::new(builder.build().map_err(|error| unusable(&error))?)
            }
            StoreKind::Gcs => {
                let mut builder = GoogleCloudStorageBuilder::new();
                for (key, value) in keys::<GoogleConfigKey>(given) {
                    builder = builder.with_config(key, value.expose());
                }
                let builder = builder
                    .with_bucket_name(bucket)
                    .with_retry(retry)
                    .with_http_connector(connector()?);
                Arc::new(builder.build().map_err(|error| unusable(&error))?)
            }
            StoreKind::Azure => {
                let mut builder = MicrosoftAzureBuilder::new();
                for (key, value) in keys::<AzureConfigKey>(given) {
                    builder = builder.with_config(key, value.expose());
                }
                let builder = builder
                    .with_container_name(bucket)
                    .with_retry(retry)
                    .with_http_connector(connector()?);
                Arc::new(builder.build().map_err(|error| unusable(&error))?)
            }
            StoreKind::Backend => {
                let token = given.get(platform::TOKEN);
                let platform = Platform::new(settings.url.expose(), token, connector()?)?;
                return Ok(Self::by(Way::Platform(Arc::new(platform))));
            }
        };
        let prefix = Path::from_url_path(url.path().trim_matches('/'))
            .map_err(|error| OpenError::Settings(cut(&error.to_string())))?;
        Ok(Self::by(Way::Library(Library { library, prefix })))
    }

    /// A directory, made if missing with mode 0700. Written objects are synced before they are acknowledged.
    ///
    /// # Errors
    /// [`OpenError::Directory`].
    pub fn directory(path: PathBuf) -> Result<Self, OpenError> {
        use std::os::unix::fs::DirBuilderExt as _;
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path);
        made.map_err(|source| OpenError::Directory {
            path: path.clone(),
            source,
        })?;
        let library = LocalFileSystem::new_with_prefix(&path).map_err(|error| unusable(&error))?;
        Ok(Self::by(Way::Library(Library {
            library: Arc::new(library.with_fsync(true)),
            prefix: Path::default(),
        })))
    }

    fn by(way: Way) -> Self {
        Self {
            way,
            #[cfg(test)]
            watch: None,
        }
    }

    #[cfg(test)]
    pub(super) fn watched(self, watch: Watch) -> Self {
        Self {
            watch: Some(watch),
            ..self
        }
    }

    #[cfg(test)]
    fn is_let(&self, action: &'static str, name: &str) -> Result<(), ObjectError> {
        match &self.watch {
            Some(Watch(watch)) if !watch(action, name) => Err(ObjectError::Failed {
                action,
                object: name.to_owned(),
                message: "refused".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    #[cfg(test)]
    pub(super) fn of(library: Arc<dyn ObjectStore>) -> Self {
        Self::by(Way::Library(Library {
            library,
            prefix: Path::default(),
        }))
    }

    /// Writes an object unless there is one of that name.
    ///
    /// # Errors
    /// [`ObjectError::Failed`].
    pub async fn put(&self, name: &str, content: Bytes) -> Result<Put, ObjectError> {
        #[cfg(test)]
        self.is_let("put", name)?;
        match &self.way {
            Way::Library(library) => library.put(name, content).await,
            Way::Platform(platform) => platform.put(name, content).await,
        }
    }

    /// Reads an object of at most `limit` bytes.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn get(&self, name: &str, limit: u64) -> Result<Bytes, ObjectError> {
        #[cfg(test)]
        self.is_let("get", name)?;
        match &self.way {
            Way::Library(library) => library.get(name, limit).await,
            Way::Platform(platform) => platform.get(name, limit).await,
        }
    }

    /// Whether there is an object of that name, without reading it.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn exists(&self, name: &str) -> Result<bool, ObjectError> {
        #[cfg(test)]
        self.is_let("head", name)?;
        match &self.way {
            Way::Library(library) => library.exists(name).await,
            Way::Platform(platform) => platform.exists(name).await,
        }
    }

    /// All objects whose names begin with the components of `prefix`, by name.
    ///
    /// # Errors
    /// [`ObjectError::Failed`], [`ObjectError::TooMany`].
    pub async fn list(&self, prefix: &str) -> Result<Vec<Listed>, ObjectError> {
        #[cfg(test)]
        self.is_let("list", prefix)?;
        match &self.way {
            Way::Library(library) => library.list(prefix).await,
            Way::Platform(platform) => platform.list(prefix).await,
        }
    }

    /// Names of the tasks that have something here, as far as `own` may know: the platform tells each task of its
    /// workspace's only.
    ///
    /// # Errors
    /// [`ObjectError::Failed`]; for the platform also without a task that asks.
    pub async fn tasks(&self, own: Option<&str>) -> Result<Vec<String>, ObjectError> {
        match (&self.way, own) {
            (Way::Library(library), _) => library.directories("tasks").await,
            (Way::Platform(platform), Some(own)) => platform.tasks(own).await,
            (Way::Platform(_), None) => Err(ObjectError::Failed {
                action: "listing",
                object: "tasks".to_owned(),
                message: "the platform's API tells of one task only; name it".to_owned(),
            }),
        }
    }

    /// Removes an object; one that is not there is removed already.
    ///
    /// # Errors
    /// [`ObjectError::Failed`].
    pub async fn delete(&self, name: &str) -> Result<(), ObjectError> {
        #[cfg(test)]
        self.is_let("delete", name)?;
        match &self.way {
            Way::Library(library) => library.delete(name).await,
            Way::Platform(platform) => platform.delete(name).await,
        }
    }
}

impl Library {
    async fn put(&self, name: &str, content: Bytes) -> Result<Put, ObjectError> {
        let path = self.path(name);
        let options = PutOptions::from(PutMode::Create);
        let put = self.library.put_opts(&path, content.into(), options);
        match within(put).await {
            Ok(Ok(_)) => Ok(Put::Written),
            Ok(Err(object_store::Error::AlreadyExists { .. })) => Ok(Put::Exists),
            Ok(Err(error)) => Err(failed("writing", name, &error)),
            Err(late) => Err(silent("writing", name, &late)),
        }
    }

    async fn get(&self, name: &str, limit: u64) -> Result<Bytes, ObjectError> {
        let path = self.path(name);
        let get = async {
            let found = self.library.get(&path).await?;
            if found.meta.size > limit {
                return Ok(None);
            }
            found.bytes().await.map(Some)
        };
        match within(get).await {
            Ok(Ok(Some(content))) => Ok(content),
            Ok(Ok(None)) => Err(ObjectError::TooLarge {
                object: name.to_owned(),
                limit,
            }),
            Ok(Err(error)) => Err(failed("reading", name, &error)),
            Err(late) => Err(silent("reading", name, &late)),
        }
    }

    async fn exists(&self, name: &str) -> Result<bool, ObjectError> {
        match within(self.library.head(&self.path(name))).await {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(object_store::Error::NotFound { .. })) => Ok(false),
            Ok(Err(error)) => Err(failed("reading", name, &error)),
            Err(late) => Err(silent("reading", name, &late)),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, ObjectError> {
        let path = self.path(prefix);
        let mut stream = self.library.list(Some(&path));
        let mut found = Vec::new();
        loop {
            let next = match within(stream.try_next()).await {
                Ok(Ok(Some(next))) => next,
                Ok(Ok(None)) => break,
                Ok(Err(error)) => return Err(failed("listing", prefix, &error)),
                Err(late) => return Err(silent("listing", prefix, &late)),
            };
            if found.len() == MAX_LISTED {
                return Err(ObjectError::TooMany {
                    prefix: prefix.to_owned(),
                });
            }
            // What is not below our own prefix was not asked for.
            let Some(parts) = next.location.prefix_match(&self.prefix) else {
                continue;
            };
            let parts: Vec<String> = parts.map(|part| part.as_ref().to_owned()).collect();
            let modified = next.last_modified.timestamp_millis();
            found.push(Listed {
                name: parts.join("/"),
                bytes: next.size,
                modified: Timestamp::from_millisecond(modified).unwrap_or(Timestamp::UNIX_EPOCH),
            });
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    async fn directories(&self, prefix: &str) -> Result<Vec<String>, ObjectError> {
        let path = self.path(prefix);
        match within(self.library.list_with_delimiter(Some(&path))).await {
            Ok(Ok(found)) => {
                let names = found.common_prefixes.iter().filter_map(Path::filename);
                Ok(names.map(str::to_owned).collect())
            }
            Ok(Err(error)) => Err(failed("listing", prefix, &error)),
            Err(late) => Err(silent("listing", prefix, &late)),
        }
    }

    async fn delete(&self, name: &str) -> Result<(), ObjectError> {
        match within(self.library.delete(&self.path(name))).await {
            Ok(Ok(()) | Err(object_store::Error::NotFound { .. })) => Ok(()),
            Ok(Err(error)) => Err(failed("removing", name, &error)),
            Err(late) => Err(silent("removing", name, &late)),
        }
    }

    fn path(&self, name: &str) -> Path {
        let parts = name.split('/').filter(|part| !part.is_empty());
        let all = self.prefix.parts();
        let mut path: Path = all.collect();
        for part in parts {
            path = path.join(part);
        }
        path
    }
}

async fn within<T>(call: impl Future<Output = T>) -> Result<T, tokio::time::error::Elapsed> {
    tokio::time::timeout(CALL + DEADLINE, call).await
}

/// The variables that the library knows.
fn keys<K: FromStr>(given: &BTreeMap<String, Secret>) -> impl Iterator<Item = (K, &Secret)> {
    given.iter().filter_map(|(name, value)| {
        let key = name.to_ascii_lowercase().parse().ok()?;
        Some((key, value))
    })
}

fn unusable(error: &object_store::Error) -> OpenError {
    OpenError::Settings(cut(&error.to_string()))
}

fn silent(
    action: &'static str,
    object: &str,
    late: &(dyn std::error::Error + 'static),
) -> ObjectError {
    ObjectError::Failed {
        action,
        object: object.to_owned(),
        message: late.to_string(),
    }
}

fn failed(action: &'static str, object: &str, error: &object_store::Error) -> ObjectError {
    let object = object.to_owned();
    if matches!(error, object_store::Error::NotFound { .. }) && action == "reading" {
        return ObjectError::NotFound { object };
    }
    ObjectError::Failed {
        action,
        object,
        message: cut(&chain(error)),
    }
}

/// An error with its causes; each says its own part only once.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}

/// A text of a store's, fit for a message: no signatures of URLs, no control characters, not endless.
fn cut(text: &str) -> String {
    redact(text)
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .take(SHOWN)
        .collect()
}
