//! The engine with real programs behind real PTYs.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::pty::{Master, PtySource};
use super::screen::{Effects, Screen};
use super::size::Size;
use super::*;

/// A program in a PTY, with the engine on it.
pub(in crate::terminals) struct Program {
    pub(in crate::terminals) terminal: Terminal,
    pub(in crate::terminals) signals: mpsc::Receiver<Signal>,
    child: Option<Box<dyn Child + Send + Sync>>,
    // Kept open as the keeper would.
    _master: Box<dyn MasterPty + Send>,
}

const SIZE: Size = Size {
    columns: 80,
    rows: 24,
};
const PATIENCE: Duration = Duration::from_secs(20);

impl Program {
    pub(in crate::terminals) fn start(id: &str, kind: Kind, script: &str) -> Self {
        Self::start_kept(id, kind, script, None)
    }

    fn start_kept(id: &str, kind: Kind, script: &str, keep: Option<&std::path::Path>) -> Self {
        let pair = native_pty_system()
            .openpty(PtySize {
                rows: SIZE.rows,
                cols: SIZE.columns,
                ..PtySize::default()
            })
            .unwrap();
        let mut command = CommandBuilder::new("bash");
        command.args(["--norc", "-c", script]);
        command.env("PS1", "$ ");
        command.env("TERM", "xterm-256color");
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let fd = pair.master.as_raw_fd().unwrap();
        let master: OwnedFd = borrow(fd).try_clone_to_owned().unwrap();
        let source = PtySource::new(&master).unwrap();
        let (sender, signals) = mpsc::channel(1024);
        let id = TerminalId::new(id).unwrap();
        let keep = keep
            .map(|directory| keep::Keep::begin(directory, &id, &mut Screen::new(SIZE), 0).unwrap());
        let options = TerminalOptions {
            id,
            kind,
            size: SIZE,
            signals: Some(sender),
            keep,
        };
        let terminal = Terminal::start(options, source, Master::new(master).unwrap());
        Self {
            terminal,
            signals,
            child: Some(child),
            _master: pair.master,
        }
    }

    /// Waits for the program and tells the engine, as the supervisor does on the keeper's word.
    pub(in crate::terminals) fn reap(&mut self) -> tokio::task::JoinHandle<()> {
        let mut child = self.child.take().unwrap();
        let terminal = self.terminal.clone();
        tokio::spawn(async move {
            let status = tokio::task::spawn_blocking(move || child.wait())
                .await
                .unwrap()
                .unwrap();
            let exit = match status.signal() {
                Some(_) => Exit::Signal(9),
                None => Exit::Code(i32::try_from(status.exit_code()).unwrap()),
            };
            terminal.exited(exit).await;
        })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

#[expect(
    unsafe_code,
    reason = "portable-pty lends its descriptor as a number only"
)]
fn borrow(fd: std::os::fd::RawFd) -> BorrowedFd<'static> {
    // SAFETY: the PTY that owns it outlives the duplicate made from it.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

async fn next(viewer: &mut Viewer) -> Option<Frame> {
    timeout(PATIENCE, viewer.next())
        .await
        .expect("the terminal said nothing for 20 s")
}

/// Shows frames on a screen of its own until `wanted` is on it; returns the bytes of output too.
async fn show_until(viewer: &mut Viewer, screen: &mut Screen, wanted: &str) -> Vec<u8> {
    let mut output = Vec::new();
    while !screen.text().contains(wanted) {
        let Ok(frame) = timeout(PATIENCE, viewer.next()).await else {
            panic!(
                "no {wanted:?} within 20 s on the screen:\n{}",
                screen.text()
            );
        };
        show(frame.expect("the terminal is over"), screen, &mut output);
    }
    output
}

fn show(frame: Frame, screen: &mut Screen, output: &mut Vec<u8>) {
    match frame {
        Frame::Output { bytes, .. } => {
            screen.feed(&bytes, &mut Effects::default());
            output.extend_from_slice(&bytes);
        }
        Frame::Snapshot { bytes, .. } => {
            *screen = Screen::new(screen.size());
            screen.feed(&bytes, &mut Effects::default());
            output.clear();
        }
        Frame::Size { size, .. } => screen.resize(size),
        Frame::Title(_) | Frame::Exit(_) => {}
    }
}

async fn watch(terminal: &Terminal, options: ViewerOptions) -> (Viewer, Screen) {
    (terminal.attach(options).await.unwrap(), Screen::new(SIZE))
}

fn sized(columns: u16, rows: u16) -> ViewerOptions {
    ViewerOptions {
        size: Some(Size { columns, rows }),
        ..ViewerOptions::default()
    }
}

#[tokio::test]
async fn a_viewer_types_and_sees_the_echo_and_the_exit() {
    let mut program = Program::start(
        "shell-1",
        Kind::Shell,
        "read line; echo \"got $line\"; exit 3",
    );
    let (mut viewer, mut screen) = watch(&program.terminal, sized(80, 24)).await;
    viewer.input().send(b"hello\r").await;
    show_until(&mut viewer, &mut screen, "got hello").await;
    program.reap().await.unwrap();
    loop {
        match next(&mut viewer).await.expect("the exit was never told") {
            Frame::Exit(exit) => break assert_eq!(exit, Exit::Code(3)),
            _ => continue,
        }
    }
    assert_eq!(next(&mut viewer).await, None);
    // Who comes later still sees the last screen and the exit.
    let (mut late, mut screen) = watch(&program.terminal, sized(80, 24)).await;
    show_until(&mut late, &mut screen, "got hello").await;
    assert_eq!(next(&mut late).await, Some(Frame::Exit(Exit::Code(3))));
}

#[tokio::test]
async fn a_grandchild_that_keeps_the_terminal_does_not_hide_the_end() {
    let script = "sleep 1000 & echo child $!; exit 0";
    let mut program = Program::start("shell-1", Kind::Shell, script);
    let (mut viewer, mut screen) = watch(&program.terminal, sized(80, 24)).await;
    show_until(&mut viewer, &mut screen, "child ").await;
    let text = screen.text();
    program.reap().await.unwrap();
    let ended = timeout(Duration::from_secs(3), async {
        while !matches!(viewer.next().await, Some(Frame::Exit(_))) {}
    });
    let ended = ended.await;
    let pid = text
        .split("child ")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap();
    let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert!(ended.is_ok(), "the end was not told within 3 s");
}

#[tokio::test]
async fn output_is_complete_and_in_order_for_a_viewer_that_reads() {
    let mut program = Program::start("shell-1", Kind::Shell, "read go; stty -opost; seq 1 200000");
    let (mut viewer, _) = watch(&program.terminal, sized(80, 24)).await;
    let expected: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    viewer.input().send(b"\r").await;
    program.reap();
    let mut output = Vec::new();
    let mut at = None;
    loop {
        match next(&mut viewer).await.unwrap() {
            Frame::Output { offset, bytes } => {
                assert_eq!(
                    *at.get_or_insert(offset),
                    offset,
                    "an offset was skipped or repeated"
                );
                at = Some(offset + bytes.len() as u64);
                output.extend_from_slice(&bytes);
            }
            Frame::Snapshot { skipped, .. } => assert_eq!(skipped, 0, "a fast viewer was skipped"),
            Frame::Exit(_) => break,
            _ => {}
        }
    }
    let text = String::from_utf8(output).unwrap();
    let begin = text.find("1\n2\n").unwrap();
    assert_eq!(text.get(begin..).unwrap(), expected);
}

#[tokio::test]
async fn a_stalled_viewer_stops_nobody_and_comes_back_to_the_right_screen() {
    let mut program = Program::start(
        "shell-1",
        Kind::Shell,
        "read go; seq 1 1000000; echo the end; read on",
    );
    let (mut stalled, mut stalled_screen) = watch(&program.terminal, sized(80, 24)).await;
    let (mut reader, mut reader_screen) = watch(&program.terminal, ViewerOptions::default()).await;
    reader.input().send(b"\r").await;
    show_until(&mut reader, &mut reader_screen, "the end").await;
    let mut output = Vec::new();
    let mut skipped_bytes = 0;
    while !stalled_screen.text().contains("the end") {
        let frame = next(&mut stalled).await.unwrap();
        if let Frame::Snapshot { skipped, bytes, .. } = &frame
            && *skipped > 0
        {
            skipped_bytes = *skipped;
            let mark = format!("[skipped {skipped} bytes]");
            assert!(memchr::memmem::find(bytes, mark.as_bytes()).is_some());
        }
        show(frame, &mut stalled_screen, &mut output);
    }
    assert!(
        skipped_bytes > 1_000_000,
        "only {skipped_bytes} bytes were skipped"
    );
    assert_eq!(
        stalled_screen.text(),
        program.terminal.text().await.unwrap().text
    );
    assert_eq!(stalled_screen.text(), reader_screen.text());
    drop(program.signals.try_recv());
}

#[tokio::test]
async fn a_viewer_resumes_where_it_was_without_loss_or_repetition() {
    let program = Program::start(
        "shell-1",
        Kind::Shell,
        "for i in $(seq 1 40); do echo line $i; sleep 0.01; done; echo the end; read x",
    );
    let (mut viewer, mut screen) = watch(&program.terminal, sized(80, 24)).await;
    let mut output: Vec<u8> = Vec::new();
    let mut at = 0;
    while !screen.text().contains("the end") {
        let frame = next(&mut viewer).await.unwrap();
        let cut = matches!(frame, Frame::Output { .. });
        match &frame {
            Frame::Output { offset, bytes } => at = offset + bytes.len() as u64,
            Frame::Snapshot { offset, .. } => at = *offset,
            _ => {}
        }
        let mut part = Vec::new();
        show(frame, &mut screen, &mut part);
        output.extend(part);
        if cut {
            drop(viewer);
            let options = ViewerOptions {
                resume: Some(at),
                ..sized(80, 24)
            };
            viewer = program.terminal.attach(options).await.unwrap();
        }
    }
    assert_eq!(screen.text(), program.terminal.text().await.unwrap().text);
    let text = String::from_utf8(output).unwrap();
    for number in 2..=40 {
        assert_eq!(
            text.matches(&format!("line {number}\r\n")).count(),
            1,
            "line {number}"
        );
    }
}

#[tokio::test]
async fn the_server_answers_while_nobody_watches() {
    // `read -d R` takes the cursor report; without an answer it waits until the test gives up.
    let script = r#"stty -echo; printf 'ab\033[6n'; IFS= read -rs -d R answer; echo "${answer#?}" done; read x"#;
    let program = Program::start("shell-1", Kind::Shell, script);
    let answered = async {
        while !program.terminal.text().await.unwrap().text.contains("done") {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, answered).await.expect("nobody answered");
    assert!(
        program
            .terminal
            .text()
            .await
            .unwrap()
            .text
            .contains("[1;3 done")
    );
}

#[tokio::test]
async fn one_viewer_answers_and_a_replay_is_not_answered() {
    let script = r#"stty raw -echo; printf 'ready'; read -rs -N1 go; printf '\033[c'; head -c 8 | od -An -c | head -1; echo; cat -v"#;
    let program = Program::start("shell-1", Kind::Shell, script);
    let (mut first, mut screen) = watch(&program.terminal, sized(80, 24)).await;
    let (mut second, mut other) = watch(&program.terminal, sized(80, 24)).await;
    show_until(&mut first, &mut screen, "ready").await;
    show_until(&mut second, &mut other, "ready").await;
    // An answer to nothing (a replayed query) does not reach the program.
    first.input().send(b"\x1b[?9;9c").await;
    first.input().send(b"g").await;
    let mut query_seen = Vec::new();
    while memchr::memmem::find(&query_seen, b"\x1b[c").is_none() {
        show(
            next(&mut first).await.unwrap(),
            &mut screen,
            &mut query_seen,
        );
    }
    second.input().send(b"\x1b[?2;2c").await;
    first.input().send(b"\x1b[?1;2c").await;
    second.input().send(b"\x1b[?3;3c").await;
    first.input().send(b"\x1b[?4;4cXend").await;
    show_until(&mut first, &mut screen, "end").await;
    let text = screen.text();
    assert!(text.contains("?   1   ;   2   c"), "{text}");
    for wrong in ["9;9", "2;2c", "3;3", "4;4"] {
        assert!(!text.contains(wrong), "{wrong} came through: {text}");
    }
}

#[tokio::test]
async fn the_size_belongs_to_the_typist_and_read_only_viewers_change_nothing() {
    let program = Program::start(
        "shell-1",
        Kind::Shell,
        "while :; do s=$(stty size); [ \"$s\" = \"$p\" ] || echo now $s; p=$s; read -t 0.05 x && echo read $x; done",
    );
    let (mut desk, mut screen) = watch(&program.terminal, sized(100, 30)).await;
    show_until(&mut desk, &mut screen, "now 30 100").await;
    let (phone, _) = watch(&program.terminal, sized(40, 20)).await;
    let options = ViewerOptions {
        read_only: true,
        ..sized(50, 50)
    };
    let (mut spy, mut spy_screen) = watch(&program.terminal, options).await;
    spy.input().send(b"evil\r").await;
    spy.input()
        .resize(Size {
            columns: 55,
            rows: 55,
        })
        .await;
    spy.input().take_over().await;
    assert_eq!(
        program.terminal.status().size,
        Size {
            columns: 100,
            rows: 30
        }
    );
    phone.input().send(b"hi\r").await;
    show_until(&mut desk, &mut screen, "now 20 40").await;
    drop(phone);
    show_until(&mut spy, &mut spy_screen, "now 30 100").await;
    let text = program.terminal.text().await.unwrap().text;
    assert!(
        text.contains("read hi") && !text.contains("evil") && !text.contains("55"),
        "{text}"
    );
}

#[tokio::test]
async fn resize_storms_are_coalesced_and_the_last_size_wins() {
    let program = Program::start(
        "shell-1",
        Kind::Shell,
        "n=0; trap 'n=$((n+1)); echo $n changes, $(stty size)' WINCH; echo up; while :; do read -t 0.05 x; done",
    );
    let (mut viewer, mut screen) = watch(&program.terminal, sized(80, 24)).await;
    show_until(&mut viewer, &mut screen, "up").await;
    let input = viewer.input();
    let began = std::time::Instant::now();
    for number in 0..2000u16 {
        input
            .resize(Size {
                columns: number % 1200,
                rows: number % 7,
            })
            .await;
    }
    input
        .resize(Size {
            columns: 90,
            rows: 33,
        })
        .await;
    let mut status = program.terminal.watch();
    let last = Size {
        columns: 90,
        rows: 33,
    };
    timeout(PATIENCE, status.wait_for(|status| status.size == last))
        .await
        .unwrap()
        .unwrap();
    let most = began.elapsed().as_millis() / 50 + 2;
    show_until(&mut viewer, &mut screen, " changes, 33 90").await;
    let text = screen.text();
    let changes = text
        .split(" changes, 33 90")
        .next()
        .unwrap()
        .split_whitespace()
        .last()
        .unwrap();
    assert!(
        changes.parse::<u128>().unwrap() <= most,
        "{changes} changes, at most {most}"
    );
}

#[tokio::test]
async fn a_large_paste_is_complete_and_an_interrupt_overtakes_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().display();
    let script = format!(
        "stty raw -echo; echo ready; head -c 10485760 > {path}; stty sane -echo; trap 'echo interrupted' INT; echo sleeping; \
         while :; do sleep 0.1; done"
    );
    let program = Program::start("shell-1", Kind::Shell, &script);
    let (mut viewer, mut screen) = watch(&program.terminal, sized(80, 24)).await;
    show_until(&mut viewer, &mut screen, "ready").await;
    let paste: Vec<u8> = (0..10_485_760u32)
        .map(|number| b'a' + u8::try_from(number % 23).unwrap())
        .collect();
    for part in paste.chunks(1 << 20) {
        viewer.input().send(part).await;
    }
    show_until(&mut viewer, &mut screen, "sleeping").await;
    assert!(
        std::fs::read(file.path()).unwrap() == paste,
        "the paste arrived changed"
    );
    // Now nobody reads: the kernel's buffer fills, the rest waits here.
    for part in paste.chunks(1 << 20) {
        viewer.input().send(part).await;
    }
    let began = std::time::Instant::now();
    viewer.input().send(b"\x03").await;
    show_until(&mut viewer, &mut screen, "interrupted").await;
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn typed_bytes_are_reported_when_the_program_ends() {
    let mut program = Program::start("main", Kind::Agent, "stty raw -echo; echo up; sleep 0.2");
    let (mut viewer, mut screen) = watch(&program.terminal, sized(80, 24)).await;
    show_until(&mut viewer, &mut screen, "up").await;
    assert_eq!(program.terminal.type_bytes(b"short".to_vec()).await, Ok(()));
    program.reap();
    let long = program.terminal.type_bytes(vec![b'x'; 4 << 20]);
    assert_eq!(
        timeout(PATIENCE, long).await.unwrap(),
        Err(TypeError::Ended)
    );
}

#[tokio::test]
async fn titles_commands_and_addresses_become_signals() {
    let mut program = Program::start(
        "main",
        Kind::Agent,
        r"printf '\033]0;my \033[1mtitle\007\033]0;title two\007\033]7501;state=working:app=codex\033\\http://localhost:5173/\n'; read x",
    );
    let mut all = Vec::new();
    while !all.contains(&Signal::Listen(5173)) {
        all.push(
            timeout(PATIENCE, program.signals.recv())
                .await
                .unwrap()
                .unwrap(),
        );
    }
    assert!(all.contains(&Signal::Title("title two".into())), "{all:?}");
    assert!(
        all.contains(&Signal::Osc(b"7501;state=working:app=codex".to_vec())),
        "{all:?}"
    );
    assert_eq!(program.terminal.status().title, "title two");
}

#[tokio::test]
async fn viewers_that_leave_are_forgotten() {
    let program = Program::start("shell-1", Kind::Shell, "read x");
    for _ in 0..200 {
        drop(program.terminal.attach(sized(80, 24)).await.unwrap());
    }
    let mut status = program.terminal.watch();
    timeout(PATIENCE, status.wait_for(|status| status.viewers == 0))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn the_screen_and_its_offset_survive_the_engine() {
    let directory = tempfile::tempdir().unwrap();
    // More than one checkpoint's worth, with colours, so that nothing of it is skipped over.
    let script =
        r"seq 1 360000 | sed 's/.*/\x1b[31m& of a lot of output/'; printf 'the end'; read x";
    let program = Program::start_kept("main", Kind::Agent, script, Some(directory.path()));
    let (mut viewer, mut screen) = watch(&program.terminal, sized(100, 30)).await;
    show_until(&mut viewer, &mut screen, "the end").await;
    let text = program.terminal.text().await.unwrap().text;
    let offset = program.terminal.offset();
    assert!(offset > 9 << 20, "{offset}");
    let restored = keep::Keep::restore(directory.path(), program.terminal.id())
        .unwrap()
        .unwrap();
    assert_eq!(restored.offset, offset);
    assert_eq!(
        restored.screen.size(),
        Size {
            columns: 100,
            rows: 30
        }
    );
    assert_eq!(restored.screen.text(), text);
}
