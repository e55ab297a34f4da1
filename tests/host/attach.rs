//! `whim attach`: people in terminals of their own, with full-screen programs.

use portable_pty::PtySize;

use crate::person::Person;
use crate::support::{custom, ready, start, whim};

/// The detach key: `Ctrl-\`, then `d`.
const DETACH: &[u8] = b"\x1cd";

#[test]
fn several_people_use_full_screen_programs_and_leave_one_by_one() {
    let (whim, client) = start(&custom(whim(), "PS1='$ ' exec bash --norc -i"));
    ready(&client, &whim);
    let mut first = Person::at(&whim, "main");
    first.types(b"stty size; seq -f 'line %g' 1 500 | less\r");
    first.sees("40 120");
    first.types(b"G");
    first.sees("line 500");
    // Who comes later sees the screen as it is, with lines that were printed before.
    let mut second = Person::at(&whim, "main");
    second.sees("line 480");
    // The window is whose who types.
    first.resize(PtySize {
        rows: 20,
        cols: 60,
        ..PtySize::default()
    });
    // `less` keeps its first line.
    first.sees("line 480");
    first.types(b"q");
    first.sees("$ ");
    first.types(b"stty size\r");
    first.sees("20 60");

    let file = whim.root().at("/app/repo/written-by-vi");
    first.types(b"vi written-by-vi; echo after-$((40 + 3))\r");
    first.sees("written-by-vi");
    first.types(b"ione two\x1b:wq\r");
    let written = whim_kit::wait::file(&file, crate::support::PATIENCE, |text| {
        (text == "one two\n").then_some(())
    });
    written.unwrap();
    // Until then `vi` throws away what is typed.
    first.sees("after-43");

    first.types(DETACH);
    assert_eq!(first.ended(), 0);
    // It leaves the terminal as it found it: main screen, no mouse, no bracketed paste, cursor shown.
    first.sees("\x1b[?25h");
    second.types(b"echo still-$((40 + 2))\r");
    second.sees("still-42");
    second.types(b"exit 3\r");
    assert_eq!(
        second.ended(),
        0,
        "the program's end is the terminal's, not a failure of attach"
    );
}
