//! What is refused because a machine would run it. Pure.
//!
//! Attachments are material for an agent to read. A program among them is at best a mistake, so it is refused by its
//! first bytes, whatever its name, and by its name, whatever it holds. Nothing that is stored has an execute bit.

/// First bytes of programs.
const MAGIC: [(&[u8], &str); 10] = [
    (b"\x7fELF", "an ELF program"),
    (b"MZ", "a Windows program"),
    (b"#!", "a script with an interpreter line"),
    (b"\xfe\xed\xfa\xce", "a Mach-O program"),
    (b"\xfe\xed\xfa\xcf", "a Mach-O program"),
    (b"\xce\xfa\xed\xfe", "a Mach-O program"),
    (b"\xcf\xfa\xed\xfe", "a Mach-O program"),
    // A universal binary, or a Java class.
    (b"\xca\xfe\xba\xbe", "a Mach-O program or a Java class"),
    (b"\xbe\xba\xfe\xca", "a Mach-O program"),
    (b"\0asm", "a WebAssembly module"),
];

/// How many bytes are enough for [`by_content`].
pub(super) const ENOUGH: usize = 8;

/// Extensions of what a desktop, a shell or a package manager runs or installs.
const EXTENSIONS: [&str; 38] = [
    "apk", "app", "appimage", "bash", "bat", "bin", "class", "cmd", "com", "command", "cpl", "deb",
    "dll", "dmg", "dylib", "elf", "exe", "fish", "hta", "jar", "ko", "lnk", "msi", "msix", "o",
    "pif", "pkg", "ps1", "psm1", "rpm", "run", "scr", "sh", "so", "vbs", "wasm", "wsf", "zsh",
];

/// What kind of program begins with these bytes.
#[must_use]
pub(super) fn by_content(first: &[u8]) -> Option<&'static str> {
    // A byte order mark does not keep a shell from anything that it hides here.
    let first = first.strip_prefix(b"\xef\xbb\xbf").unwrap_or(first);
    MAGIC
        .iter()
        .find(|(magic, _)| first.starts_with(magic))
        .map(|(_, what)| *what)
}

/// The extension of a program, if the name has one.
#[must_use]
pub(super) fn by_name(name: &str) -> Option<&'static str> {
    let (_, extension) = name.rsplit_once('.')?;
    EXTENSIONS
        .into_iter()
        .find(|known| extension.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_known_by_their_first_bytes() {
        for program in [
            &b"\x7fELF\x02\x01"[..],
            b"MZ\x90\0",
            b"#!/bin/sh\n",
            b"\xef\xbb\xbf#!/bin/sh",
            b"\xcf\xfa\xed\xfe\x07",
            b"\xca\xfe\xba\xbe\0\0\0\x34",
        ] {
            assert!(by_content(program).is_some(), "{program:?}");
        }
        for other in [
            &b"\x89PNG\r\n"[..],
            b"%PDF-1.7",
            b"PK\x03\x04",
            b"# Title",
            b"M",
            b"",
            b"\xff\xd8\xff",
        ] {
            assert_eq!(by_content(other), None, "{other:?}");
        }
        let this = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(by_content(this.get(..ENOUGH).unwrap()).is_some());
    }

    #[test]
    fn and_by_their_names() {
        for name in ["01-a.exe", "01-a.EXE", "x.tar.sh", "lib.so", "a.AppImage"] {
            assert!(by_name(name).is_some(), "{name}");
        }
        for name in ["01-a.png", "exe", "a.exe.txt", "a.", "notes.md", "a.sho"] {
            assert_eq!(by_name(name), None, "{name}");
        }
    }
}
