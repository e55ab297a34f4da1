use super::*;
use proptest::prelude::*;

#[derive(Default)]
struct Log(Vec<String>);

impl Visit for Log {
    fn scalar(&mut self, path: &Path, value: Scalar<'_>) {
        let keys: Vec<_> = (0..path.len())
            .map(|level| String::from_utf8_lossy(path.key(level)).into_owned())
            .collect();
        let value = match value {
            Scalar::Text(text, _) => format!("{text:?}"),
            other => format!("{other:?}"),
        };
        self.0.push(format!("{}={value}", keys.join(".")));
    }
}

fn read(chunks: &[&[u8]]) -> (Vec<String>, bool) {
    let (mut reader, mut log) = (Reader::default(), Log::default());
    for chunk in chunks {
        reader.feed(chunk, &mut log);
    }
    reader.finish(&mut log);
    (log.0, reader.done())
}

const DOCUMENT: &[u8] =
    r#" {"model":"a\"b\u00e9\ud83d\ude00\ud800x","n":-1.5e3,"list":[1,[2],{"k":null}],
    "deep":{"er":{"x":true}},"empty":{},"none":[] , "last":false}"#
        .as_bytes();

#[test]
fn scalars_come_with_their_paths() {
    let expected = [
        "model=\"a\\\"bé😀\u{fffd}x\"",
        "n=Number(\"-1.5e3\")",
        "list.=Number(\"1\")",
        "list..=Number(\"2\")",
        "list..k=Null",
        "deep.er.x=Bool(true)",
        "last=Bool(false)",
    ];
    assert_eq!(
        read(&[DOCUMENT]),
        (expected.map(str::to_owned).to_vec(), true)
    );
}

#[test]
fn every_split_gives_the_same() {
    let whole = read(&[DOCUMENT]);
    for at in 0..=DOCUMENT.len() {
        let (a, b) = DOCUMENT.split_at(at);
        assert_eq!(read(&[a, b]), whole, "split at {at}");
    }
}

#[test]
fn memory_is_flat() {
    let mut reader = Reader::default();
    let mut log = Log::default();
    reader.feed(b"{\"", &mut log);
    for _ in 0..10_000 {
        reader.feed(b"key or value without end", &mut log);
    }
    reader.feed(b"\":\"", &mut log);
    for _ in 0..10_000 {
        reader.feed("é\\u00e9".as_bytes(), &mut log);
    }
    reader.feed(b"\"}", &mut log);
    assert!(reader.done());
    assert!(
        reader.text.capacity() <= 2 * TEXT,
        "{}",
        reader.text.capacity()
    );
    assert!(log.0.iter().all(|line| line.len() <= KEY + TEXT + 8));
}

#[test]
fn nesting_is_bounded() {
    let deep = |n: usize| [vec![b'['; n], vec![b']'; n]].concat();
    assert!(read(&[&deep(DEEPEST)]).1);
    assert!(!read(&[&deep(DEEPEST + 1)]).1);
    let below = br#"{"a":[[[[[[[[[["x",1]]]]]]]]]],"b":2}"#;
    assert!(
        read(&[below]).0.contains(&"b=Number(\"2\")".to_owned()),
        "finds its way back"
    );
}

proptest! {
    #[test]
    fn any_bytes_any_split(bytes: Vec<u8>, at: prop::sample::Index) {
        let (a, b) = bytes.split_at(at.index(bytes.len() + 1));
        prop_assert_eq!(read(&[a, b]), read(&[&bytes]));
    }

    #[test]
    fn agrees_with_serde(texts: Vec<String>, numbers: Vec<u64>) {
        let document = serde_json::json!({"texts": texts, "numbers": numbers});
        let (found, done) = read(&[document.to_string().as_bytes()]);
        prop_assert!(done);
        let expected: Vec<String> = texts.iter().filter(|t| t.len() <= TEXT).map(|t| format!("texts.={t:?}"))
            .chain(numbers.iter().map(|n| format!("numbers.=Number(\"{n}\")"))).collect();
        let found: Vec<String> = found.into_iter().filter(|f| expected.contains(f)).collect();
        prop_assert_eq!(found, expected);
    }
}
