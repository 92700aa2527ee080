//! The image and the Compose file, as far as they can be tested without a container engine: their commands run here.

use std::{collections::HashMap, fs, path::Path, process::Command};

use polylance_tests::{TestServer, polylance, polylance_with, read_yaml, repository};
use serde_json::Value;

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap()
}

/// The instructions of the Dockerfile with their arguments; continued lines are one.
fn instructions() -> Vec<(String, String)> {
    let text = read("Dockerfile");
    let lines = text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    let lines = lines.replace("\\\n", " ");
    let split = |line: &str| line.split_once(' ').map(|(name, rest)| (name.to_owned(), rest.trim().to_owned()));
    lines.lines().filter(|line| !line.is_empty()).map(|line| split(line).unwrap()).collect()
}

/// The arguments of all instructions of a name.
fn arguments(name: &str) -> Vec<String> {
    instructions().into_iter().filter(|(found, _)| found == name).map(|(_, arguments)| arguments).collect()
}

/// The defaults of the build arguments.
fn versions() -> HashMap<String, String> {
    let defaults = arguments("ARG");
    defaults.iter().filter_map(|arg| arg.split_once('=')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

/// The arguments without leading flags such as `--mount=…`, and those flags.
fn without_flags(arguments: &str) -> (Vec<&str>, Vec<&str>) {
    arguments.split_whitespace().partition(|word| word.starts_with("--") && word.contains('='))
}

fn compose() -> Value {
    read_yaml(&repository().join("docker-compose.yml"))
}

fn words(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect()
}

#[test]
fn image_is_built_from_stages_and_files_that_exist() {
    let mut stages: Vec<String> = Vec::new();
    for (name, arguments) in instructions() {
        match name.as_str() {
            "FROM" => {
                let stage = arguments.split_once(" AS ").map_or("", |(_, stage)| stage);
                stages.push(stage.to_owned());
            }
            "COPY" => {
                let (flags, paths) = without_flags(&arguments);
                let (_, sources) = paths.split_last().unwrap();
                assert!(!sources.is_empty(), "{arguments}");
                match flags.iter().find_map(|flag| flag.strip_prefix("--from=")) {
                    Some(stage) => assert!(stages[..stages.len() - 1].contains(&stage.to_owned()), "{arguments}"),
                    None => assert!(sources.iter().all(|path| repository().join(path).exists()), "{arguments}"),
                }
            }
            _ => {}
        }
    }
    assert_eq!(stages, ["page", "build", ""], "only the last stage becomes the image");
    // The page's build writes to the folder that is copied, and the program is where the last stage takes it from.
    let copies = arguments("COPY");
    assert!(copies.contains(&"--from=page /page/dist crates/server/page/dist".to_owned()), "{copies:?}");
    assert!(copies.contains(&"--from=build /out/polylance /usr/local/bin/polylance".to_owned()), "{copies:?}");
    let runs = arguments("RUN");
    assert!(runs.iter().any(|run| run.ends_with("install -D target/release/polylance /out/polylance")), "{runs:?}");
    assert_eq!(arguments("USER"), ["polylance"]);
    assert_eq!(arguments("ENTRYPOINT"), ["[\"polylance\"]"]);
    assert!(arguments("HEALTHCHECK")[0].ends_with(" CMD [\"/usr/local/bin/healthcheck\"]"));
}

#[test]
fn image_has_the_versions_of_the_repository() {
    let versions = versions();
    let toolchain = format!("channel = \"{}\"", versions["RUST_VERSION"]);
    assert!(read("rust-toolchain.toml").contains(&toolchain), "{toolchain}");
    let node: u64 = versions["NODE_VERSION"].parse().unwrap();
    let page: Value = serde_json::from_str(&read("crates/server/page/package.json")).unwrap();
    let lock: Value = serde_json::from_str(&read("crates/server/page/package-lock.json")).unwrap();
    let vite = &lock["packages"]["node_modules/vite"]["engines"]["node"];
    assert_eq!(page["engines"]["node"], *vite, "the page needs the Node.js that its build tool needs");
    assert_eq!(lock["packages"][""]["engines"], page["engines"]);
    let accepted = page["engines"]["node"].as_str().unwrap();
    assert!(accepted.contains(&format!(">={node}.")), "Node.js {node} of the image: {accepted}");
    assert!(read(".github/workflows/ci.yml").contains(&format!("node-version: {node}\n")));
    for stage in arguments("FROM") {
        let (version, image) = (stage.split([' ', ':']).nth(1).unwrap(), stage.split(':').next().unwrap());
        let expected = match image {
            "node" => "${NODE_VERSION}-${DEBIAN_VERSION}-slim",
            "rust" => "${RUST_VERSION}-slim-${DEBIAN_VERSION}",
            image => {
                assert_eq!(image, "debian");
                "${DEBIAN_VERSION}-slim"
            }
        };
        assert_eq!(version, expected, "all stages have one version of Debian");
    }
}

#[test]
fn commands_of_the_image_are_valid_shell_and_build_what_make_builds() {
    let runs = arguments("RUN");
    assert!(runs.len() >= 4);
    for run in &runs {
        let (flags, command) = without_flags(run);
        assert!(flags.iter().all(|flag| flag.starts_with("--mount=type=cache,target=/")), "{run}");
        let checked = Command::new("bash").args(["-n", "-c", &command.join(" ")]).output().unwrap();
        assert!(checked.status.success(), "{run}: {}", String::from_utf8_lossy(&checked.stderr));
    }
    let has = |command: &str| runs.iter().any(|run| run.contains(command));
    let makefile = read("Makefile");
    for command in
        ["cargo build --release --locked --package polylance-cli", "npm ci --no-audit --no-fund", "npm run build"]
    {
        assert!(has(command) && makefile.contains(command), "{command}");
    }
}

#[test]
fn build_context_leaves_out_what_git_ignores_and_keeps_the_sources() {
    let ignored = read(".dockerignore");
    let ignored: Vec<&str> = ignored.lines().filter(|line| !line.starts_with('#')).collect();
    for path in [".git", "target", ".venv", "data", ".gpu", "gpu-out", "**/node_modules", "crates/server/page/dist"] {
        assert!(ignored.contains(&path), "{path}");
    }
    let needed = [
        "Cargo.toml",
        "Cargo.lock",
        "crates/cli/Cargo.toml",
        "crates/builtin/assets",
        "tests/Cargo.toml",
        "tests/src/lib.rs",
        "tests/hostile/Cargo.toml",
        "crates/server/page/package.json",
        "docker/healthcheck",
    ];
    for path in needed {
        assert!(repository().join(path).exists(), "{path}");
        let parts = Path::new(path).ancestors().map(|part| part.to_str().unwrap());
        assert!(parts.into_iter().all(|part| !ignored.contains(&part)), "{path}");
    }
}

#[test]
fn quickstart_of_the_compose_file_embeds_serves_and_is_healthy() {
    let compose = compose();
    let (embed, serve) = (&compose["services"]["embed"], &compose["services"]["serve"]);
    for (service, profiles) in [
        ("embed", &["quickstart"][..]),
        ("serve", &["quickstart", "cluster"]),
        ("s3", &["s3"]),
        ("bucket", &["s3"]),
        ("scheduler", &["cluster"]),
        ("executor", &["cluster"]),
        ("run", &["cluster"]),
    ] {
        assert_eq!(words(&compose["services"][service]["profiles"]), profiles, "{service}");
    }
    // A profile has one of the two, and a dependency that it does not have must not be required.
    for service in ["embed", "run"] {
        let dependency = &serve["depends_on"][service];
        assert_eq!(dependency["condition"], "service_completed_successfully", "{service}");
        assert_eq!(dependency["required"], false, "{service}");
    }
    assert_eq!(words(&serve["ports"]), ["127.0.0.1:8000:8000"], "no other machine reaches the port");
    for (volume, target) in [embed, serve].iter().flat_map(|service| words(&service["volumes"])).map(|volume| {
        let (source, target) = volume.split_once(':').unwrap();
        (source, target.trim_end_matches(":ro"))
    }) {
        match volume.strip_prefix("./") {
            Some(path) => assert!(repository().join(path).is_dir() && target == "/pipelines", "{volume}"),
            None => assert!(compose["volumes"].get(volume).is_some() && target == "/data", "{volume}"),
        }
    }
    assert_eq!(words(&serve["healthcheck"]["test"]), ["CMD", "/usr/local/bin/healthcheck"]);

    // The two commands, with the paths of the container in this machine. Three languages are enough.
    let folder = tempfile::tempdir().unwrap();
    let (data, pipelines) = (folder.path().to_str().unwrap(), repository().join("pipelines"));
    let here =
        |word: &str| word.replace("/data/", &format!("{data}/")).replace("/pipelines", pipelines.to_str().unwrap());
    let mut run: Vec<String> = words(&embed["command"]).into_iter().map(here).collect();
    run.extend(["--set", "source.uri=builtin:udhr?codes=eng,fra,jpn"].map(str::to_owned));
    let _ = polylance(&run).exits_with(0);

    let command = words(&serve["command"]);
    let token = read("docker-compose.yml");
    let token = token.split("the token `").nth(1).unwrap().split('`').next().unwrap();
    let hash = polylance_with(&["serve", "--hash-token"], &[], token.as_bytes()).exits_with(0).stdout;
    assert!(command.contains(&format!("--token-hash={}", hash.trim()).as_str()), "{hash}");
    assert!(command.contains(&"--listen=0.0.0.0:8000") && command[0] == "serve");
    let arguments: Vec<String> =
        command[1..].iter().filter(|word| !word.starts_with("--listen=")).map(|word| here(word)).collect();
    let mut server = TestServer::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let search = r#"{"table": "udhr", "query": "right to education", "k": 1}"#;
    assert_eq!(server.post("/v1/search", None, search).status, 401);
    let found = server.post("/v1/search", Some(token), search);
    assert_eq!(found.status, 200, "{}", found.text);
    assert_eq!(found.json()["hits"][0]["row"]["article"], 26, "{}", found.text);

    // The health check of the image, with the command lines that it can meet.
    let port = server.address.rsplit(':').next().unwrap().to_owned();
    let healthcheck = |command_line: &str| {
        let file = folder.path().join("cmdline");
        fs::write(&file, command_line.replace(' ', "\0") + "\0").unwrap();
        Command::new(repository().join("docker/healthcheck")).arg(file).status().unwrap().code()
    };
    let with_port = |line: &str| line.replace("8000", &port);
    let answered = [
        with_port("polylance serve --table udhr=/data/udhr.lance --listen=0.0.0.0:8000"),
        with_port("/usr/local/bin/polylance serve --listen 127.0.0.1:8000"),
        with_port("/sbin/docker-init -- /usr/local/bin/polylance serve --listen 0.0.0.0:8000 --tls-cert=c.pem"),
    ];
    for line in &answered {
        assert_eq!(healthcheck(line), Some(0), "{line}");
    }
    assert_eq!(server.stop("TERM").0, Some(0));
    for line in &answered {
        assert_eq!(healthcheck(line), Some(1), "{line}");
    }
    assert_eq!(healthcheck("polylance run /pipelines/quickstart.toml"), Some(0), "a run has no port");
    assert_eq!(healthcheck("polylance search --table t serve"), Some(0));
}
