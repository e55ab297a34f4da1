//! What viewers cost, and what those who come back are shown.

use std::io::Read as _;
use std::time::{Duration, Instant};

use super::server::Server;
use super::viewer::{Place, Said, Viewer};

const VIEWERS: usize = 200;

/// Kilobytes and threads of a server for each viewer that does nothing; the first ones, so that no freed memory hides
/// what they cost.
pub(crate) fn idle_viewers(server: &dyn Server) -> (f64, f64) {
    let place = server.shell();
    let mut first = Viewer::plain(&place);
    first.prompt();
    let (memory, threads) = (server.memory(), server.threads());
    let viewers = watch(&place);
    let each = |after: usize, before: usize| (after as f64 - before as f64) / viewers.len() as f64;
    (
        each(server.memory() as usize, memory as usize),
        each(server.threads(), threads),
    )
}

fn watch(place: &Place) -> Vec<Viewer> {
    let all = (0..VIEWERS).map(|_| {
        let mut viewer = Viewer::plain(place);
        viewer.next(None);
        viewer
    });
    all.collect()
}

/// From connecting to the right screen with 10,000 lines behind it.
pub(crate) struct Return {
    pub(crate) milliseconds: f64,
    pub(crate) kilobytes: f64,
}

/// Medians of `times`.
pub(crate) fn come_back(server: &dyn Server, times: usize) -> Return {
    let place = server.shell();
    let mut first = Viewer::page(&place, None);
    first.prompt();
    first.type_text("for i in {1..12000}; do echo \"$i of the lines that a build prints: src/module_$((i % 97)).rs\"; done; echo do''ne\r");
    first.until("done\r\n");
    drop(first);
    let mut found: Vec<(f64, f64)> = (0..times)
        .map(|_| {
            let begun = Instant::now();
            let mut viewer = Viewer::page(&place, None);
            loop {
                if let Said::Other(b'3', payload) = viewer.next(None).unwrap() {
                    let took = begun.elapsed().as_secs_f64() * 1e3;
                    check(&payload);
                    return (took, viewer.weight as f64 / 1e3);
                }
            }
        })
        .collect();
    found.sort_unstable_by(|one, other| one.0.total_cmp(&other.0));
    let (milliseconds, kilobytes) = found[times / 2];
    Return {
        milliseconds,
        kilobytes,
    }
}

/// The snapshot holds the last line and 10,000 before it.
fn check(payload: &[u8]) {
    let (head, body) = payload.split_at(17);
    let mut text = Vec::new();
    if head[16] == 1 {
        let mut inflated = flate2::read::DeflateDecoder::new(body);
        inflated.read_to_end(&mut text).unwrap();
    } else {
        text.extend_from_slice(body);
    }
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("12000 of the lines"));
    let lines = text.matches(" of the lines").count();
    assert!(lines >= 10_000, "{lines} lines");
}

/// Lines lost or repeated over that many cuts of the connection, and how often a screen came in place of the bytes.
pub(crate) fn cuts(server: &dyn Server, times: usize) -> (u64, usize) {
    let place = server.shell();
    let mut first = Viewer::page(&place, None);
    first.prompt();
    first.type_text("i=0; echo be''gin; while :; do printf '%012d\\n' $(seq $i $((i + 199))); i=$((i + 200)); sleep 0.005; done\r");
    first.until("begin\r\n");
    drop(first);
    let (mut resume, mut wrong, mut screens) = (None, 0, 0);
    let mut expected = None;
    let mut partial: Vec<u8> = Vec::new();
    for cut in 0..times {
        let mut viewer = Viewer::page(&place, resume);
        // Different lengths, so that the cuts fall everywhere: in lines, in messages, before the first.
        let until = Instant::now() + Duration::from_micros(500 + (cut as u64 * 7919) % 20_000);
        while let Some(said) = viewer.next(Some(until)) {
            match said {
                Said::Output(payload) => {
                    let (offset, bytes) = payload.split_at(8);
                    let offset = u64::from_be_bytes(offset.try_into().unwrap());
                    if resume.is_some_and(|resume| resume != offset) {
                        wrong += 1;
                    }
                    resume = Some(offset + bytes.len() as u64);
                    partial.extend_from_slice(bytes);
                    wrong += numbered(&mut partial, &mut expected);
                }
                Said::Other(b'3', payload) => {
                    screens += 1;
                    let offset = u64::from_be_bytes(payload[..8].try_into().unwrap());
                    (resume, expected) = (Some(offset), None);
                    partial.clear();
                }
                Said::Other(..) => {}
            }
        }
    }
    server.end(&place);
    // The first screen is no cut's.
    (wrong, screens - 1)
}

/// Takes the whole lines; how many are not the next number.
fn numbered(partial: &mut Vec<u8>, expected: &mut Option<u64>) -> u64 {
    let mut wrong = 0;
    while let Some(end) = partial.iter().position(|byte| *byte == b'\n') {
        let line: Vec<u8> = partial.drain(..=end).collect();
        let text = String::from_utf8_lossy(&line);
        // What follows a screen may begin inside a line.
        let whole = text.len() == 14;
        let number = text.trim_end().parse::<u64>().ok().filter(|_| whole);
        match (*expected, number) {
            (Some(wanted), Some(number)) if wanted == number => {}
            (None, _) => {}
            _ => wrong += 1,
        }
        *expected = number
            .map(|number| number + 1)
            .or_else(|| expected.map(|wanted| wanted + 1));
    }
    wrong
}

/// What that many connections, one after the other, leave behind: descriptors and kilobytes.
pub(crate) fn connects(server: &dyn Server, times: usize) -> (i64, i64) {
    let place = server.shell();
    let mut first = Viewer::plain(&place);
    first.prompt();
    let connect = |times: usize| {
        for _ in 0..times {
            Viewer::plain(&place).next(None);
        }
    };
    connect(times / 10);
    let (descriptors, memory) = settled(server, None);
    connect(times);
    let (after, grown) = settled(server, Some(descriptors));
    (after - descriptors, grown - memory)
}

/// The last connections' ends may be under way.
fn settled(server: &dyn Server, wanted: Option<i64>) -> (i64, i64) {
    let count = || server.descriptors() as i64;
    let mut last = count();
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let now = count();
        if wanted.map_or(now == last, |wanted| now <= wanted) || Instant::now() > until {
            return (now, server.memory() as i64);
        }
        last = now;
    }
}
