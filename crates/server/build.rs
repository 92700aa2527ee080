//! Puts the page into the program, when it has been built.

use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?);
    let dist = root.join("page").join("dist");
    // A folder that is not there counts as changed in every build.
    if let Err(error) = fs::create_dir_all(&dist) {
        println!("cargo::warning={}: {error}", dist.display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=page/dist");

    let mut files = Vec::new();
    find(&dist, &mut files)?;
    files.sort();
    let out = PathBuf::from(env::var("OUT_DIR").map_err(io::Error::other)?).join("page.rs");
    let mut code = fs::File::create(out)?;
    writeln!(code, "static FILES: &[File] = &[")?;
    for file in files {
        let relative = file.strip_prefix(&dist).map_err(io::Error::other)?;
        let parts: Vec<_> = relative.iter().map(|part| part.display().to_string()).collect();
        let path = format!("/{}", parts.join("/"));
        // Found from where the crate is when it is compiled: a build folder may outlive a move of the sources.
        let at = format!("include_bytes!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {:?}))", format!("/page/dist{path}"));
        writeln!(code, "    ({path:?}, {:?}, {at}),", kind(&file))?;
    }
    writeln!(code, "];")
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() {
            find(&path, files)?;
        } else if !hidden {
            files.push(path);
        }
    }
    Ok(())
}

fn kind(file: &Path) -> &'static str {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("json" | "webmanifest" | "map") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("wasm") => "application/wasm",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
