//! Python environments with what tests import, from `PyPI`.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{binary::target, repository};

/// The interpreter of a virtual environment that holds `tests/python/requirements.txt`: Lance's clients, an S3 server.
pub fn python() -> PathBuf {
    environment("python", "requirements.txt")
}

/// A YAML file as JSON.
pub fn read_yaml(path: &Path) -> Value {
    let script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let output = Command::new(python()).args(["-c", script]).arg(path).output().expect("the interpreter starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The interpreter of a virtual environment that holds `tests/python/requirements-ray.txt`. Ray takes hundreds of megabytes.
pub fn python_with_ray() -> PathBuf {
    environment("python-ray", "requirements-ray.txt")
}

/// An environment is created once, next to the build, and reused until its requirements change.
fn environment(name: &str, requirements: &str) -> PathBuf {
    let requirements = repository().join("tests/python").join(requirements);
    let wanted = fs::read_to_string(&requirements).expect("the requirements are committed");
    let folder = target().join("tmp").join(name);
    fs::create_dir_all(&folder).expect("the build folder is writable");
    let lock = File::create(folder.join("lock")).expect("the build folder is writable");
    lock.lock().expect("another test's lock ends");

    let installed = folder.join("installed.txt");
    let interpreter = folder.join("venv/bin/python");
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return interpreter;
    }
    check(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder.join("venv")));
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    check(Command::new(&interpreter).args(pip).arg(&requirements));
    fs::write(&installed, wanted).expect("the build folder is writable");
    interpreter
}

fn check(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
}
