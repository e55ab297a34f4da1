//! How fast output and keys pass, beside neighbours as well.

use std::io::Read as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use portable_pty::{CommandBuilder, PtySize, native_pty_system};

use super::server::Server;
use super::viewer::Viewer;

/// Megabytes of text that programs print.
pub(crate) const SIZE: usize = 200;
const KEYS: usize = 1000;

/// Text as programs print it, readable by everybody.
pub(crate) fn text() -> tempfile::NamedTempFile {
    use std::os::unix::fs::PermissionsExt as _;
    let lines =
        (0..40).map(|n| format!("line {n} of text as programs print it, {}\n", "x".repeat(n)));
    let block: String = lines.collect();
    let mut text = block.repeat(SIZE * 1_000_000 / block.len() + 1);
    text.truncate(SIZE * 1_000_000);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    file
}

/// Of `cat` of the text.
pub(crate) struct Throughput {
    /// A second.
    pub(crate) megabytes: f64,
    /// Milliseconds of the server's processes for each megabyte.
    pub(crate) processor: f64,
    /// Of what was printed, in megabytes.
    pub(crate) received: f64,
}

pub(crate) fn throughput(server: &dyn Server, file: &Path) -> Throughput {
    let shell = server.shell();
    let mut viewer = Viewer::plain(&shell);
    viewer.prompt();
    let (before, bytes, begun) = (server.processor(), viewer.received, Instant::now());
    viewer.type_text(&format!("cat {}; echo do''ne\r", file.display()));
    viewer.until("done\r\n");
    let seconds = begun.elapsed().as_secs_f64();
    let found = Throughput {
        megabytes: SIZE as f64 / seconds,
        processor: (server.processor() - before) / SIZE as f64,
        received: (viewer.received - bytes) as f64 / 1e6,
    };
    drop(viewer);
    server.end(&shell);
    found
}

/// The same text through a PTY that is read and thrown away; megabytes a second.
pub(crate) fn bare(file: &Path) -> f64 {
    let pair = native_pty_system().openpty(PtySize::default()).unwrap();
    let mut command = CommandBuilder::new("cat");
    command.arg(file);
    let begun = Instant::now();
    let mut child = pair.slave.spawn_command(command).unwrap();
    drop(pair.slave);
    let mut reader = pair.master.try_clone_reader().unwrap();
    let mut buffer = vec![0; 65_536];
    // The kernel ends the output of a PTY with EIO.
    while reader.read(&mut buffer).is_ok_and(|read| read > 0) {}
    let seconds = begun.elapsed().as_secs_f64();
    child.wait().unwrap();
    SIZE as f64 / seconds
}

/// Microseconds from a key to its echo by a program: median and 99th percentile.
pub(crate) fn echo(server: &dyn Server) -> (f64, f64) {
    let shell = server.shell();
    let mut viewer = Viewer::plain(&shell);
    viewer.prompt();
    viewer.type_text("stty -echo -icanon; echo se''t; cat\r");
    viewer.until("set\r\n");
    let mut times: Vec<f64> = (0..KEYS)
        .map(|_| {
            let begun = Instant::now();
            viewer.type_text("q");
            viewer.until("q");
            begun.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    drop(viewer);
    server.end(&shell);
    times.sort_unstable_by(f64::total_cmp);
    (times[KEYS / 2], times[KEYS * 99 / 100])
}

/// The same while one neighbour's program floods a viewer that reads, and another's one that does not.
pub(crate) fn echo_beside_neighbours(server: &dyn Server) -> (f64, f64) {
    let shells = [server.shell(), server.shell()];
    let [mut stalled, mut flooding] = shells.each_ref().map(|shell| {
        let mut viewer = Viewer::plain(shell);
        viewer.prompt();
        viewer.type_text("yes\r");
        viewer
    });
    stalled.until("y\r\ny\r\n");
    let over = AtomicBool::new(false);
    let found = std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                flooding.next(None);
            }
        });
        let found = echo(server);
        over.store(true, Ordering::Relaxed);
        flood.join().unwrap();
        found
    });
    for shell in &shells {
        server.end(shell);
    }
    found
}

/// Messages of output that come later than 20 ms after a viewer said PAUSE; the output goes on when it says so.
pub(crate) fn late_after_pause(server: &dyn Server, file: &Path) -> usize {
    let shell = server.shell();
    let mut viewer = Viewer::plain(&shell);
    viewer.prompt();
    viewer.type_text(&format!("cat {}; echo do''ne\r", file.display()));
    viewer.listen(Duration::from_millis(100));
    viewer.command(b'2');
    viewer.listen(Duration::from_millis(20));
    let late = viewer.listen(Duration::from_secs(1));
    viewer.command(b'3');
    viewer.until("done\r\n");
    drop(viewer);
    server.end(&shell);
    late
}

/// How long the program takes that prints the text, in seconds: watched by nobody (ttyd ends it then), and by one who reads
/// nothing.
pub(crate) fn program(server: &dyn Server, file: &Path) -> (f64, f64) {
    let run = |stalled: bool| {
        let place = server.shell();
        let mut viewer = Viewer::plain(&place);
        viewer.prompt();
        let directory = tempfile::tempdir().unwrap();
        let note = directory.path().join("took");
        open(directory.path());
        viewer.type_text(&format!(
            "sleep 0.2; s=$(date +%s%N); cat {}; e=$(date +%s%N); echo $((e-s)) > {1}.new; mv {1}.new {1}\r",
            file.display(),
            note.display()
        ));
        // A connection that is closed with something unread takes along what was typed.
        viewer.until("took.new");
        // Kept open without a read when it is to stall.
        let _kept = stalled.then_some(viewer);
        let limit = Duration::from_secs(30);
        let took =
            whim_kit::wait::until("the program", limit, || std::fs::read_to_string(&note).ok());
        server.end(&place);
        took.map_or(f64::INFINITY, |text| {
            text.trim().parse::<f64>().unwrap() / 1e9
        })
    };
    (run(false), run(true))
}

fn open(directory: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o777)).unwrap();
}
