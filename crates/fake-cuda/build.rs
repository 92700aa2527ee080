//! Compiles the kernels of polylance-cuda for the host, and the fake driver with them, into `libcuda.so.1`.

use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::Mutex,
    thread,
};

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // As it is: the compiler's messages have many lines.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> io::Result<()> {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let kernels = root.join("../cuda/kernels");
    let folder = PathBuf::from(variable("OUT_DIR")?).join("fake");
    let objects = folder.join("objects");
    fs::create_dir_all(&objects)?;
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CXX");
    if variable("CARGO_CFG_TARGET_OS")? != "linux" {
        return Ok(());
    }

    let mut sources = vec![kernels.join("host/driver.cpp")];
    for file in files(&kernels)?.into_iter().chain(files(&kernels.join("host"))?) {
        let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if extension == "cu" {
            sources.push(file.clone());
        }
        // The tests in C++ and the scripts are no part of the library.
        if ["cu", "cuh", "h"].contains(&extension) {
            println!("cargo::rerun-if-changed={}", file.display());
        }
    }
    println!("cargo::rerun-if-changed={}", sources[0].display());
    // New files count too.
    println!("cargo::rerun-if-changed={}", kernels.display());

    let compiler = find_compiler()?;
    let mut compiled = compile(&compiler, &kernels, &sources, &objects)?;
    compiled.sort();
    let mut link = Command::new(&compiler);
    link.args(["-shared", "-Wl,-soname,libcuda.so.1", "-Wl,-Bsymbolic", "-pthread", "-o"]);
    run(link.arg(folder.join("libcuda.so.1")).args(compiled))
}

/// One object for each source, by as many compilers at once as cargo allows.
fn compile(compiler: &str, kernels: &Path, sources: &[PathBuf], objects: &Path) -> io::Result<Vec<PathBuf>> {
    let jobs = variable("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
    let waiting = Mutex::new(sources.iter());
    let next = || waiting.lock().ok()?.next();
    let compile_some = || -> io::Result<Vec<PathBuf>> {
        let mut compiled = Vec::new();
        while let Some(source) = next() {
            let object = objects.join(source.file_name().unwrap_or_default()).with_extension("o");
            let mut command = Command::new(compiler);
            command.args(["-x", "c++", "-std=c++17", "-O2", "-fPIC", "-pthread", "-w", "-I"]).arg(kernels);
            run(command.arg("-c").arg(source).arg("-o").arg(&object))?;
            compiled.push(object);
        }
        Ok(compiled)
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(compile_some)).collect();
        let mut compiled = Vec::new();
        for worker in workers {
            let result = worker.join().map_err(|_| io::Error::other("a compiling thread panicked"))?;
            compiled.extend(result?);
        }
        Ok(compiled)
    })
}

/// `$CXX`, or the first of the usual compilers that runs.
fn find_compiler() -> io::Result<String> {
    if let Ok(compiler) = variable("CXX") {
        return Ok(compiler);
    }
    let works = |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
    let found = ["c++", "g++", "clang++"].into_iter().find(works);
    found.map(str::to_owned).ok_or_else(|| io::Error::other("no C++ compiler: install g++, or name one in CXX"))
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn variable(name: &str) -> io::Result<String> {
    env::var(name).map_err(|error| io::Error::other(format!("{name}: {error}")))
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output().map_err(|error| io::Error::other(format!("{command:?}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr))))
}
