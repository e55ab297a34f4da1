//! Documents that follow from our types, written once by a test and carried compressed.
//!
//! What makes schemas of types is 400 kB of code that a container runs to say the same at each start. So the documents stand
//! in `supervisor/documents`, and a test fails when one is not what the types say; with `WHIM_TEST_WRITE=1` it writes them.

use std::io::Read as _;

use flate2::read::GzDecoder;
use serde_json::Value;

/// The JSON Schema of the spec.
pub(crate) const SPEC: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/spec.schema.json.gz"));
/// The API in OpenAPI 3.
pub(crate) const OPENAPI: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/openapi.json.gz"));

/// One of the two, unpacked and read.
pub(crate) fn document(packed: &[u8]) -> Value {
    let mut text = Vec::new();
    match GzDecoder::new(packed).read_to_end(&mut text) {
        Ok(_) => serde_json::from_slice(&text).unwrap_or_default(),
        // Packed when the binary was built, and read by the tests: it cannot be.
        Err(_) => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use whim_wire::spec::Spec;

    fn is_what_the_types_say(name: &str, packed: &[u8], made: &Value) {
        if std::env::var_os("WHIM_TEST_WRITE").is_some() {
            let path = format!("{}/documents/{name}", env!("CARGO_MANIFEST_DIR"));
            std::fs::write(path, format!("{made:#}\n")).unwrap();
        } else {
            assert!(
                document(packed) == *made,
                "documents/{name} is not what the types say; WHIM_TEST_WRITE=1 writes it"
            );
        }
    }

    #[test]
    fn the_documents_are_what_the_types_say() {
        let spec = schemars::schema_for!(Spec).to_value();
        is_what_the_types_say("spec.schema.json", SPEC, &spec);
        let api = crate::api::openapi::table::build();
        is_what_the_types_say("openapi.json", OPENAPI, &api);
    }
}
