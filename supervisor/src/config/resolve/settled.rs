//! What was told, in a form that needs no files any more.
//!
//! A supervisor may be replaced hours after the start. By then standard input is read to its end, the file of the spec
//! may be gone, and a platform may have removed the files of the credentials. So the first supervisor settles what it
//! read and has it held for the next one.
//!
//! The bytes hold every credential: they belong into the sealed memory that the keeper passes to supervisors only.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};
use whim_wire::spec::Spec;
use zeroize::Zeroizing;

use super::Given;
use super::reader::Reader;
use crate::config::settings::Variables;
use crate::config::variables::VARIABLES;

/// Why settled bytes cannot be read back.
#[derive(Debug, thiserror::Error)]
pub enum SettledError {
    /// Not written by [`Given::settle`].
    #[error("what the last supervisor left is no record of its start: {0}")]
    Format(#[from] serde_json::Error),
    #[error("what the last supervisor left holds a value that is no base64: {0}")]
    Value(#[from] base64::DecodeError),
}

/// Arguments and variables may be any bytes, so they travel as base64.
#[derive(Serialize, Deserialize)]
struct Record {
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    spec: Option<Spec>,
}

impl Given {
    /// Bytes from which [`Given::from_settled`] makes the same settings without a file or standard input. Credential
    /// files are read once more; one that is gone by now is left out, as it would be from there on.
    ///
    /// # Errors
    /// None in practice; JSON of these types can always be written.
    pub fn settle(&self, spec: Option<&Spec>) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
        let mut variables: Vec<(OsString, OsString)> = Vec::new();
        let secrets: Vec<(&str, String)> = VARIABLES
            .iter()
            .filter(|known| known.secret)
            .map(|known| (known.name, format!("{}_FILE", known.name)))
            .collect();
        for (name, value) in self.variables.iter() {
            if !secrets
                .iter()
                .any(|(plain, file)| name == *plain || name == file.as_str())
            {
                variables.push((name.clone(), value.clone()));
            }
        }
        let mut reader = Reader::new(&self.options, &self.variables);
        for (name, _) in &secrets {
            if let Some(secret) = reader.secret(name) {
                variables.push((name.into(), secret.expose().into()));
            }
        }
        let text = |value: &OsString| BASE64.encode(value.as_bytes());
        let record = Record {
            arguments: self.arguments.iter().map(text).collect(),
            variables: variables
                .iter()
                .map(|(name, value)| (text(name), text(value)))
                .collect(),
            spec: spec.cloned(),
        };
        serde_json::to_vec(&record).map(Zeroizing::new)
    }

    /// What was settled, and the spec to resolve it with.
    ///
    /// # Errors
    /// [`SettledError`].
    pub fn from_settled(bytes: &[u8]) -> Result<(Self, Option<Vec<u8>>), SettledError> {
        let record: Record = serde_json::from_slice(bytes)?;
        let text = |value: &String| BASE64.decode(value).map(OsString::from_vec);
        let arguments = record
            .arguments
            .iter()
            .map(text)
            .collect::<Result<Vec<_>, _>>()?;
        let pairs = record
            .variables
            .iter()
            .map(|(name, value)| Ok((text(name)?, text(value)?)));
        let variables = Variables::new(pairs.collect::<Result<Vec<_>, SettledError>>()?);
        let spec = record.spec.as_ref().map(serde_json::to_vec).transpose()?;
        // A line that asks for help has never been settled.
        let mut given = Self::parse(&arguments, variables).unwrap_or_default();
        given.settled = true;
        Ok((given, spec))
    }
}
