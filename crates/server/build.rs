//! Includes the web page in the binary, if it has been built.

use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?);
    let dist = root.join("page").join("dist");
    // A missing folder would count as changed in every build.
    if let Err(error) = fs::create_dir_all(&dist) {
        println!("cargo::warning={}: {error}", dist.display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=page/dist");

    let mut files = Vec::new();
    find_files(&dist, &mut files)?;
    files.sort();
    let out = PathBuf::from(env::var("OUT_DIR").map_err(io::Error::other)?).join("page.rs");
    let mut code = fs::File::create(out)?;
    writeln!(code, "static FILES: &[File] = &[")?;
    for file in files {
        let relative = file.strip_prefix(&dist).map_err(io::Error::other)?;
        let parts: Vec<_> = relative.iter().map(|part| part.display().to_string()).collect();
        let path = format!("/{}", parts.join("/"));
        // Relative to the crate at compile time: the build folder may outlive a move of the sources.
        let at = format!("include_bytes!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {:?}))", format!("/page/dist{path}"));
        writeln!(code, "    ({path:?}, {:?}, {at}),", content_type(&file))?;
    }
    writeln!(code, "];")
}

fn find_files(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() {
            find_files(&path, files)?;
        } else if !hidden {
            files.push(path);
        }
    }
    Ok(())
}

fn content_type(file: &Path) -> &'static str {
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
