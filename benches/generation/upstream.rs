//! The scripted provider: answers at once, or streams, as the request's last path segment asks.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Events of an unpaced stream.
pub(crate) const EVENTS: usize = 20_000;
/// Events per second of a paced one.
pub(crate) const PACE: u64 = 50;

const ANSWER: &str = "{\"id\":\"msg_1\",\"type\":\"message\",\"model\":\"claude-opus-4-8\",\"content\":[],\
    \"stop_reason\":\"end_turn\",\"usage\":{\"input_tokens\":20000,\"output_tokens\":10}}";

pub(crate) async fn run(address: SocketAddr) {
    let listener = TcpListener::bind(address).await.unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(serve(stream));
    }
}

/// Nanoseconds on a clock that all processes share.
pub(crate) fn now() -> u128 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    Duration::from(time).as_nanos()
}

async fn serve(mut stream: TcpStream) -> Option<()> {
    stream.set_nodelay(true).unwrap();
    let mut buffer = vec![0; 256 << 10];
    let mut held = 0;
    loop {
        let (head, length) = loop {
            let found = buffer[..held].windows(4).position(|w| w == b"\r\n\r\n");
            if let Some(end) = found {
                let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
                let length = head
                    .split("content-length:")
                    .nth(1)
                    .and_then(|v| v.lines().next());
                let length: usize = length.map_or(0, |v| v.trim().parse().unwrap());
                break (head, end + 4 + length);
            }
            held += read(&mut stream, &mut buffer[held..]).await?;
        };
        while held < length {
            held += read(&mut stream, &mut buffer[held..]).await?;
        }
        buffer.copy_within(length..held, 0);
        held -= length;
        let query = head.lines().next().unwrap_or_default();
        if query.contains("paced=") {
            paced(&mut stream).await?;
        } else if query.contains("unpaced") {
            unpaced(&mut stream).await?;
        } else {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                ANSWER.len()
            );
            stream.write_all((head + ANSWER).as_bytes()).await.ok()?;
        }
    }
}

async fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> Option<usize> {
    match stream.read(buffer).await {
        Ok(0) | Err(_) => None,
        Ok(n) => Some(n),
    }
}

const STREAM: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

fn event(text: &str) -> String {
    let data = format!(
        "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{text}\"}}}}\n\n"
    );
    format!("{:x}\r\n{data}\r\n", data.len())
}

async fn paced(stream: &mut TcpStream) -> Option<()> {
    stream.write_all(STREAM.as_bytes()).await.ok()?;
    let begin = Instant::now();
    for n in 0.. {
        tokio::time::sleep_until((begin + Duration::from_nanos(n * 1_000_000_000 / PACE)).into())
            .await;
        stream
            .write_all(event(&format!("@{}@", now())).as_bytes())
            .await
            .ok()?;
    }
    Some(())
}

async fn unpaced(stream: &mut TcpStream) -> Option<()> {
    let batch = event("some words of the answer").repeat(50);
    stream.write_all(STREAM.as_bytes()).await.ok()?;
    for _ in 0..EVENTS / 50 {
        stream.write_all(batch.as_bytes()).await.ok()?;
    }
    let stop = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    stream
        .write_all(format!("{:x}\r\n{stop}\r\n0\r\n\r\n", stop.len()).as_bytes())
        .await
        .ok()
}
