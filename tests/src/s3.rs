//! A real S3 server over HTTP on a free port of this machine, and a server that imitates other clouds' stores.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{python, repository};

const UPLOAD: &str = "import boto3, sys; endpoint, bucket, key, file = sys.argv[1:]; \
    boto3.client('s3', endpoint_url=endpoint).upload_file(file, bucket, key)";
const REMOVE: &str = "import boto3, sys; endpoint, bucket = sys.argv[1:]
bucket = boto3.resource('s3', endpoint_url=endpoint).Bucket(bucket)
while True:
    bucket.objects.all().delete()
    try:
        bucket.delete()
        break
    except bucket.meta.client.exceptions.ClientError as error:
        if error.response['Error']['Code'] != 'BucketNotEmpty':
            raise";
const MAKE: &str = "import boto3, sys; endpoint, bucket = sys.argv[1:]
boto3.client('s3', endpoint_url=endpoint).create_bucket(Bucket=bucket)";
const EXISTS: &str = "import boto3, sys; endpoint, bucket, prefix = sys.argv[1:]
sys.exit('Contents' not in boto3.client('s3', endpoint_url=endpoint).list_objects_v2(Bucket=bucket, Prefix=prefix))";
const DOWNLOAD: &str = "import boto3, pathlib, sys; endpoint, bucket, prefix, folder = sys.argv[1:]
for found in boto3.resource('s3', endpoint_url=endpoint).Bucket(bucket).objects.filter(Prefix=prefix + '/'):
    path = pathlib.Path(folder, found.key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(found.get()['Body'].read())";

/// The running server; it ends when dropped.
#[derive(Debug)]
pub struct S3Server {
    process: Child,
    bucket: String,
    endpoint: String,
}

impl S3Server {
    /// Starts a server with one empty bucket and waits until it answers. It accepts any credentials.
    pub fn start(bucket: &str) -> Self {
        Self::start_with(bucket, &[])
    }

    /// Starts a server that refuses all credentials.
    pub fn start_guarded(bucket: &str) -> Self {
        // The one call without authentication creates the bucket.
        Self::start_with(bucket, &[("INITIAL_NO_AUTH_ACTION_COUNT", "1")])
    }

    fn start_with(bucket: &str, variables: &[(&str, &str)]) -> Self {
        let (process, endpoint) = start_script("s3_server.py", &[bucket], variables);
        Self { process, bucket: bucket.to_owned(), endpoint }
    }

    /// Uploads a file into the bucket.
    pub fn upload(&self, file: &Path, key: &str) {
        self.python(UPLOAD, &[&self.bucket, key, &file.display().to_string()]);
    }

    /// Runs a script with the endpoint as its first argument.
    fn python(&self, script: &str, arguments: &[&str]) {
        let mut command = Command::new(python());
        command.args(["-c", script, &self.endpoint]).args(arguments).envs(self.variables());
        let output = command.output().expect("python starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Copies all objects below a prefix into a folder.
    pub fn download(&self, prefix: &str, folder: &Path) {
        self.python(DOWNLOAD, &[&self.bucket, prefix, &folder.display().to_string()]);
    }

    /// Removes the bucket and its objects.
    pub fn remove_bucket(&self) {
        self.python(REMOVE, &[&self.bucket]);
    }

    /// Creates the bucket again after `remove_bucket`.
    pub fn make_bucket(&self) {
        self.python(MAKE, &[&self.bucket]);
    }

    /// Whether there is an object below a prefix.
    pub fn has(&self, prefix: &str) -> bool {
        let mut command = Command::new(python());
        command.args(["-c", EXISTS, &self.endpoint, &self.bucket, prefix]).envs(self.variables());
        command.status().expect("python starts").success()
    }

    /// The address for clients.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The process id of the server.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Environment variables with the address and credentials for clients.
    pub fn variables(&self) -> [(&str, &str); 5] {
        [
            ("AWS_ENDPOINT_URL", &self.endpoint),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "polylance"),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
        ]
    }
}

/// A server that imitates Google's or Azure's store with a bucket `corpus`. It ends when dropped.
#[derive(Debug)]
pub struct CloudServer {
    process: Child,
    endpoint: String,
}

impl CloudServer {
    /// Starts one of the `kind` `google` or `azure` with these keys: each object is a line of JSON with its key as
    /// the id.
    pub fn start(kind: &str, keys: &[&str]) -> Self {
        let (process, endpoint) = start_script("cloud_server.py", &[&[kind], keys].concat(), &[]);
        Self { process, endpoint }
    }

    /// Environment variables with the address and credentials for clients.
    pub fn variables(&self) -> [(&str, &str); 7] {
        [
            ("GOOGLE_BASE_URL", &self.endpoint),
            ("GOOGLE_SKIP_SIGNATURE", "true"),
            ("GOOGLE_ALLOW_HTTP", "true"),
            ("AZURE_STORAGE_ENDPOINT", &self.endpoint),
            ("AZURE_STORAGE_ACCOUNT_NAME", "polylance"),
            ("AZURE_SKIP_SIGNATURE", "true"),
            ("AZURE_ALLOW_HTTP", "true"),
        ]
    }
}

impl Drop for CloudServer {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Starts a server script of `tests/python`, and returns the process and the endpoint that it prints.
fn start_script(name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> (Child, String) {
    let mut command = Command::new(python());
    command
        .arg(repository().join("tests/python").join(name))
        .args(arguments)
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut process = command.spawn().expect("python starts");
    let mut endpoint = String::new();
    let stdout = process.stdout.take().expect("stdout is piped");
    BufReader::new(stdout).read_line(&mut endpoint).expect("the server prints its endpoint");
    let endpoint = endpoint.trim().to_owned();
    assert!(endpoint.starts_with("http://"), "{name} did not start: {endpoint:?}");
    (process, endpoint)
}

/// The server's secret, which no log may show.
pub(crate) const SECRET: &str = "s3cr3t-of-the-test-server";

impl Drop for S3Server {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
