//! The web page of `polylance serve`: its unit tests, and a browser on a table in five languages.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use polylance_tests::{TestServer, polylance, polylance_with, repository};

/// The token of the second server.
const TOKEN: &str = "a-token-of-these-tests";

/// The folder of the page's tests, with their npm packages installed.
fn page_tests() -> PathBuf {
    let folder = repository().join("tests/page");
    let wanted = fs::read_to_string(folder.join("package-lock.json")).unwrap();
    // Both tests need the same packages and run in separate processes.
    let lock = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("page.lock")).unwrap();
    lock.lock().unwrap();
    let installed = folder.join("node_modules/.polylance-installed");
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return folder;
    }
    run(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&folder));
    fs::write(installed, wanted).unwrap();
    folder
}

/// Runs a command; a failure includes its output.
fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}: run `.ci/setup page chromium`"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}\n{}\n{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn unit_tests_of_the_page_pass() {
    run(Command::new("npm").args(["run", "unit"]).current_dir(page_tests()));
}

#[test]
fn page_searches_reads_and_draws_in_a_browser() {
    let page = page_tests();
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("udhr.lance");
    let pipeline = folder.path().join("page.toml");
    let toml = format!(
        "version = 1\n[source]\nuri = \"builtin:udhr?codes=eng,arb,tha,swh,fra\"\n\
         keep = [\"lang\", \"language\", \"article\"]\n[index]\nwords = true\n[table]\nuri = \"{}\"\n",
        table.display()
    );
    fs::write(&pipeline, toml).unwrap();
    let _ = polylance(&["run", pipeline.to_str().unwrap(), "--progress", "none"]).exits_with(0);
    let _ = polylance(&["map", "--table", table.to_str().unwrap()]).exits_with(0);

    let named = format!("udhr={}", table.display());
    let served = TestServer::start(&["--table", &named]);
    let hash = polylance_with(&["serve", "--hash-token"], &[], TOKEN.as_bytes()).exits_with(0).stdout;
    let locked = TestServer::start(&["--table", &named, "--token-hash", hash.trim()]);
    let mut browser = Command::new("npm");
    browser.args(["run", "browser"]).current_dir(&page).env("POLYLANCE_PAGE", served.url());
    browser.env("POLYLANCE_LOCKED_PAGE", locked.url()).env("POLYLANCE_TOKEN", TOKEN);
    // Screenshots are saved relative to the repository.
    if let Some(pictures) = env::var_os("POLYLANCE_SCREENSHOTS") {
        browser.env("POLYLANCE_SCREENSHOTS", repository().join(pictures));
    }
    run(&mut browser);
}
