//! The page that `polylance serve` shows, in a browser, on a table of five languages.

use std::{
    env,
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use polylance_tests::{built, polylance, polylance_with, repository};

/// What the second server asks for.
const TOKEN: &str = "a-token-of-these-tests";

/// The folder of the page's tests, with what they need from npm.
fn page_tests() -> PathBuf {
    let folder = repository().join("tests/page");
    let wanted = fs::read_to_string(folder.join("package-lock.json")).unwrap();
    // Both tests need the same modules, and run as processes of their own.
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

/// Fails with everything the command said unless it succeeds.
fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}: run `.ci/setup page chromium`"));
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}\n{}\n{}", said(&output.stdout), said(&output.stderr));
}

/// A server that ends with the test.
struct Served {
    child: Child,
    address: String,
}

impl Served {
    /// Serves the table on a free port, with more arguments.
    fn start(table: &Path, more: &[&str]) -> Self {
        let mut child = Command::new(built("polylance"))
            .args(["serve", "--listen", "127.0.0.1:0", "--table"])
            .arg(format!("udhr={}", table.display()))
            .args(more)
            .current_dir(repository())
            .envs([("NO_COLOR", "1"), ("HF_HUB_OFFLINE", "1")])
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let messages = BufReader::new(child.stderr.take().unwrap());
        let (found, address) = mpsc::channel();
        // Reads to the end, so that the server can always write.
        thread::spawn(move || {
            let mut said = Vec::new();
            for line in messages.lines().map_while(Result::ok) {
                let address = line.split_whitespace().find(|word| word.starts_with("http://127.0.0.1:"));
                if let Some(address) = address {
                    let _ = found.send(Ok(format!("{}/", address.trim_end_matches('/'))));
                }
                said.push(line);
            }
            let _ = found.send(Err(said.join("\n")));
        });
        let address = address.recv_timeout(Duration::from_mins(5)).expect("the server says where it listens");
        Self { child, address: address.unwrap_or_else(|said| panic!("the server ended:\n{said}")) }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_page_keeps_its_own_rules() {
    run(Command::new("npm").args(["run", "unit"]).current_dir(page_tests()));
}

#[test]
fn the_page_finds_reads_and_draws_in_a_browser() {
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

    let served = Served::start(&table, &[]);
    let hash = polylance_with(&["serve", "--hash-token"], &[], TOKEN.as_bytes()).exits_with(0).stdout;
    let locked = Served::start(&table, &["--token-hash", hash.trim()]);
    let mut browser = Command::new("npm");
    browser.args(["run", "browser"]).current_dir(&page).env("POLYLANCE_PAGE", &served.address);
    browser.env("POLYLANCE_LOCKED_PAGE", &locked.address).env("POLYLANCE_TOKEN", TOKEN);
    // Pictures are wanted where the person who asks for them is.
    if let Some(pictures) = env::var_os("POLYLANCE_SCREENSHOTS") {
        browser.env("POLYLANCE_SCREENSHOTS", repository().join(pictures));
    }
    run(&mut browser);
}
