//! The house has one direction: a module of the library imports only from modules that come before it in the path that
//! an event takes. Goal: say which line points the other way. Method: read every `crate::` in `src/`, comments aside.

use std::fs;
use std::path::{Path, PathBuf};

/// The path. A module uses only what stands above it; `guide` is prose and has no imports.
const ORDER: &[&str] = &[
    "sync", "time", "event", "decode", "queue", "window", "log", "state", "dedup", "claim", "sink", "pipeline",
    "connect", "metrics", "audit",
];

#[test]
fn a_module_imports_only_from_those_before_it() {
    let files = rust_files(&src());
    assert!(files.len() > 10, "found only {} files: is this the right folder?", files.len());
    let wrong: Vec<String> = files.iter().flat_map(|file| upward_imports(file)).collect();
    assert!(wrong.is_empty(), "these lines point against the direction of the house:\n{}", wrong.join("\n"));
}

#[test]
fn every_module_of_the_library_has_its_place_in_the_order() {
    let outside = ["lib", "bin", "guide"];
    let unknown: Vec<String> = fs::read_dir(src())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .filter(|name| !outside.contains(&name.as_str()) && !ORDER.contains(&name.as_str()))
        .collect();
    assert!(unknown.is_empty(), "not in the order of the house: {unknown:?}");
}

#[test]
fn the_binary_reaches_only_the_public_api() {
    for file in rust_files(&src().join("bin")) {
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            let around = line.contains("#[path") || line.contains("include!");
            assert!(!around, "{}:{}: reaches around the public API: {line}", file.display(), number + 1);
        }
    }
}

#[test]
fn the_reader_of_imports_sees_every_form() {
    let text = "use crate::time::Clock;\nuse crate::{\n    event::{Event, crate_like},\n    window::Set,\n};\n\
                // use crate::audit::Proof;\nlet now = crate::time::nanos(d); // crate::audit\npub(crate) fn f() {}\n";
    let seen: Vec<(usize, String)> = imports(text);
    let expected = [(1, "time"), (2, "event"), (2, "window"), (7, "time")];
    assert_eq!(seen, expected.map(|(line, name)| (line, name.to_owned())));
}

/// One line of complaint for each import of `file` that points the wrong way.
fn upward_imports(file: &Path) -> Vec<String> {
    let inside = file.strip_prefix(src()).unwrap();
    let module = Path::new(inside.components().next().unwrap().as_os_str()).file_stem().unwrap().to_string_lossy();
    let Some(place) = ORDER.iter().position(|name| *name == module) else {
        return Vec::new();
    };
    let text = fs::read_to_string(file).unwrap();
    imports(&text)
        .into_iter()
        .filter_map(|(line, name)| {
            let complaint = match ORDER.iter().position(|other| *other == name) {
                Some(other) if other <= place => return None,
                Some(_) => format!("`{module}` comes before `{name}`"),
                None => format!("`crate::{name}` is not a module of the path: import it from its own module"),
            };
            Some(format!("src/{}:{line}: {complaint}", inside.display()))
        })
        .collect()
}

/// The first name of every path that starts with `crate::`, with the number of its line. Groups are opened.
fn imports(text: &str) -> Vec<(usize, String)> {
    let code: String = text.lines().flat_map(|line| [line.split("//").next().unwrap(), "\n"]).collect();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let path = &code[at + "crate::".len()..];
        found.extend(first_names(path).into_iter().map(|name| (line, name)));
    }
    found
}

/// `a` of `a::b`, or `a` and `c` of `{a::{b, x}, c::d}`.
fn first_names(path: &str) -> Vec<String> {
    let word = |s: &str| s.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = path.strip_prefix('{') else {
        return vec![word(path)];
    };
    let mut depth = 0;
    let mut names = vec![word(group)];
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(word(&group[at + 1..])),
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}
