//! The client: makes calls as agents do, prints figures a line each.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::BODY;
use super::upstream::{EVENTS, now};

/// What is measured: calls one at a time, 32 at a time, 50 paced streams, one stream as fast as it goes.
pub(crate) const CASES: [&str; 4] = ["post-1", "post-32", "paced", "unpaced"];
/// Streams of the paced case.
const STREAMS: usize = 50;

/// Prints, in order: for posts p50 and p99 in µs and calls per second; for paced streams p50 and p99 of an event's
/// delay in µs, and p50 of the first ones'; for unpaced ones events per second.
pub(crate) async fn run(what: &str, address: SocketAddr, token: &str, seconds: u64) {
    let until = Instant::now() + Duration::from_secs(seconds);
    let figures = match what {
        "post-1" => posts(address, token, 1, until, seconds).await,
        "post-32" => posts(address, token, 32, until, seconds).await,
        "paced" => paced(address, token, until).await,
        _ => unpaced(address, token, until).await,
    };
    for figure in figures {
        println!("{figure:.1}");
    }
}

pub(crate) fn request(address: SocketAddr, token: &str, query: &str, stream: bool) -> Vec<u8> {
    // Prose, code and a schema: escapes about as frequent as in real prompts.
    let piece = concat!(
        r"You keep to the style of the code around you, and say what you changed.\n  let value = map.get(key)?; ",
        r#"// and so on\n{\"type\": \"object\"} stands for a tool's schema in the text\n"#
    );
    let mut text = piece.repeat(BODY / piece.len());
    text.truncate(text.rfind(r"\n").unwrap());
    let body = format!(
        "{{\"model\":\"claude-opus-4-8\",\"max_tokens\":64,\"stream\":{stream},\"tools\":[{{\"name\":\"Bash\"}}],\
         \"messages\":[{{\"role\":\"user\",\"content\":\"{text}\"}}]}}"
    );
    format!(
        "POST /v1/messages{query} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nanthropic-version: 2023-06-01\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values
        .get((last as f64 * share).round() as usize)
        .copied()
        .unwrap_or(f64::NAN)
}

async fn posts(
    address: SocketAddr,
    token: &str,
    at_once: usize,
    until: Instant,
    seconds: u64,
) -> Vec<f64> {
    let mut tasks = JoinSet::new();
    for _ in 0..at_once {
        let request = request(address, token, "", false);
        tasks.spawn(async move {
            let mut stream = connect(address).await;
            let mut buffer = vec![0; 64 << 10];
            let mut times = Vec::new();
            while Instant::now() < until {
                let begin = Instant::now();
                stream.write_all(&request).await.unwrap();
                answer(&mut stream, &mut buffer).await;
                times.push(begin.elapsed().as_nanos() as f64 / 1000.0);
            }
            times
        });
    }
    let mut times: Vec<f64> = tasks.join_all().await.concat();
    let rate = times.len() as f64 / seconds as f64;
    vec![
        percentile(&mut times, 0.5),
        percentile(&mut times, 0.99),
        rate,
    ]
}

/// Reads one answer, whether its length is stated or it comes in chunks.
pub(crate) async fn answer(stream: &mut TcpStream, buffer: &mut [u8]) {
    let mut held = 0;
    loop {
        let n = stream.read(&mut buffer[held..]).await.unwrap();
        assert!(
            n > 0,
            "closed after {:?}",
            String::from_utf8_lossy(&buffer[..held])
        );
        held += n;
        let Some(end) = buffer[..held].windows(4).position(|w| w == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
        assert!(
            head.starts_with("http/1.1 200"),
            "{}",
            String::from_utf8_lossy(&buffer[..held])
        );
        let length = head
            .split("content-length:")
            .nth(1)
            .and_then(|v| v.lines().next());
        let whole = match length {
            Some(length) => held >= end + 4 + length.trim().parse::<usize>().unwrap(),
            None => buffer[..held].ends_with(b"0\r\n\r\n"),
        };
        if whole {
            return;
        }
    }
}

async fn paced(address: SocketAddr, token: &str, until: Instant) -> Vec<f64> {
    let mut tasks = JoinSet::new();
    for n in 0..STREAMS {
        let request = request(address, token, &format!("?paced={n}"), true);
        tasks.spawn(async move {
            // Streams do not beat in time.
            tokio::time::sleep(Duration::from_micros(n as u64 * 397)).await;
            let mut stream = connect(address).await;
            stream.write_all(&request).await.unwrap();
            let (mut buffer, mut delays) = (vec![0; 64 << 10], Vec::new());
            while Instant::now() < until {
                let n = stream.read(&mut buffer).await.unwrap();
                let at = now();
                assert!(n > 0, "closed");
                let text = String::from_utf8_lossy(&buffer[..n]);
                let stamps = text.split('@').filter_map(|part| part.parse::<u128>().ok());
                delays.extend(stamps.map(|sent| (at - sent) as f64 / 1000.0));
            }
            delays
        });
    }
    let (mut first, mut delays) = (Vec::new(), Vec::new());
    for mut stream in tasks.join_all().await {
        // A stream's first event waits for the answer's head and for other streams that begin.
        delays.append(&mut stream.split_off(1));
        first.append(&mut stream);
    }
    vec![
        percentile(&mut delays, 0.5),
        percentile(&mut delays, 0.99),
        percentile(&mut first, 0.5),
    ]
}

async fn unpaced(address: SocketAddr, token: &str, until: Instant) -> Vec<f64> {
    let request = request(address, token, "?unpaced", true);
    let (mut buffer, mut events, begin) = (vec![0; 256 << 10], 0, Instant::now());
    while Instant::now() < until {
        let mut stream = connect(address).await;
        stream.write_all(&request).await.unwrap();
        let mut end = [0u8; 5];
        while end != *b"0\r\n\r\n" {
            let n = stream.read(&mut buffer).await.unwrap();
            assert!(n > 0, "closed");
            for byte in &buffer[n.saturating_sub(5)..n] {
                end.rotate_left(1);
                end[4] = *byte;
            }
        }
        events += EVENTS;
    }
    vec![events as f64 / begin.elapsed().as_secs_f64()]
}
