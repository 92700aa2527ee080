//! Models in a store in memory.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path as FilePath, PathBuf},
    sync::Arc,
};

use object_store::{ObjectStoreExt, PutPayload, memory::InMemory, path::Path};
use polylance_encoder::{ModelConfig, synthetic::Checkpoint};
use polylance_schema::{ErrorClass, Explain};
use tempfile::TempDir;

use super::*;

const ADDRESS: &str = "s3://bucket/models/tiny";

/// A store, and a cache of its own.
struct Bucket {
    store: Arc<InMemory>,
    root: TempDir,
}

impl Bucket {
    fn empty() -> Self {
        Self { store: Arc::default(), root: tempfile::tempdir().unwrap() }
    }

    /// With a model, and files next to it that the encoder does not read.
    async fn with_model() -> Self {
        let bucket = Self::empty();
        let folder = model_folder();
        for entry in fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            bucket.put(&format!("models/tiny/{name}"), fs::read(&path).unwrap()).await;
        }
        for other in ["tiny/onnx/model.onnx", "tiny/pytorch_model.bin", "tiny2/config.json"] {
            bucket.put(&format!("models/{other}"), b"x".to_vec()).await;
        }
        bucket
    }

    async fn put(&self, key: &str, bytes: Vec<u8>) {
        self.store.put(&Path::from(key), PutPayload::from(bytes)).await.unwrap();
    }

    async fn delete(&self, key: &str) {
        self.store.delete(&Path::from(key)).await.unwrap();
    }

    fn remote(&self, key: &str) -> RemoteModel {
        RemoteModel { name: ADDRESS.to_owned(), store: Arc::<InMemory>::clone(&self.store), key: key.to_owned() }
    }

    fn cache(&self) -> ModelCache {
        ModelCache::new(self.root.path(), ADDRESS, "")
    }

    async fn find(&self, check: CopyCheck) -> Result<ModelFiles, BucketModelError> {
        let remote = self.remote("models/tiny");
        match remote.list().await {
            Ok(files) => find_listed(&remote, &files, &self.cache(), check).await,
            Err(error) => find_unlisted(error, ADDRESS, &self.cache(), check).await,
        }
    }

    /// The folders in the model's cache.
    fn folders(&self) -> Vec<PathBuf> {
        let entries = |folder: &FilePath| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries(self.root.path()).flat_map(|model| entries(&model).collect::<Vec<_>>()).filter(|f| f.is_dir()).collect()
    }

    /// The only state in the model's cache.
    fn state(&self) -> PathBuf {
        let [state] = &self.folders()[..] else { panic!("{:?}", self.folders()) };
        state.clone()
    }
}

fn model_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let _files = Checkpoint::new(ModelConfig::tiny()).write_model(folder.path()).unwrap();
    folder
}

#[tokio::test]
async fn model_is_fetched_once_and_is_that_of_the_folder() {
    let bucket = Bucket::with_model().await;
    let fetched = bucket.find(CopyCheck::Weights).await.unwrap();
    assert_eq!(fetched.name(), ADDRESS);
    let folder = model_folder();
    let local = ModelFiles::at("local", folder.path()).unwrap();
    assert_eq!(fetched.weights_hash().unwrap(), local.weights_hash().unwrap());

    let files = bucket.state().join("files");
    let mut names: Vec<_> = fs::read_dir(&files).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["config.json", "model.safetensors", "tokenizer.json"]);

    let inode = || fs::metadata(files.join("model.safetensors")).unwrap().ino();
    let before = inode();
    for check in [CopyCheck::Files, CopyCheck::Weights] {
        bucket.find(check).await.unwrap();
        assert_eq!(inode(), before);
    }
}

#[tokio::test]
async fn changed_object_is_fetched_again() {
    let bucket = Bucket::with_model().await;
    let before = bucket.find(CopyCheck::Files).await.unwrap().tokenizer_hash().unwrap();
    bucket.put("models/tiny/tokenizer.json", b"[]".to_vec()).await;
    let after = bucket.find(CopyCheck::Files).await.unwrap().tokenizer_hash().unwrap();
    assert_ne!(before, after);
    // Without the store, the newest one counts.
    for name in ["config.json", "tokenizer.json", "model.safetensors", "onnx/model.onnx", "pytorch_model.bin"] {
        bucket.delete(&format!("models/tiny/{name}")).await;
    }
    assert_eq!(bucket.find(CopyCheck::Weights).await.unwrap().tokenizer_hash().unwrap(), after);
}

#[tokio::test]
async fn missing_files_are_named() {
    let bucket = Bucket::with_model().await;
    bucket.delete("models/tiny/tokenizer.json").await;
    let error = bucket.find(CopyCheck::Weights).await.unwrap_err();
    assert_eq!(error.to_string(), format!("the model {ADDRESS} cannot be used"));
    let BucketModelError::Files { source, .. } = &error else { panic!("{error:?}") };
    assert!(source.to_string().contains("missing tokenizer.json"), "{source}");
    assert_eq!((error.class(), error.hint()), (ErrorClass::User, source.hint()));

    for (key, reason) in [
        ("models/none", "nothing is there"),
        ("models", "it has none of config.json, modules.json, adapter_config.json"),
        ("models/tiny/weights.gguf", "models/tiny/weights.gguf is missing"),
        ("models/../tiny", "models/../tiny"),
    ] {
        let error = bucket.remote(key).list().await.unwrap_err();
        assert!(matches!(error, BucketModelError::NoModel { .. }) && error.to_string().contains(reason), "{error}");
    }
}

#[tokio::test]
async fn gguf_file_is_fetched_with_the_tokenizer_next_to_it() {
    let bucket = Bucket::empty();
    bucket.put("e5/q4 0.gguf", b"GGUF".to_vec()).await;
    let error = bucket.remote("e5/q4 0.gguf").list().await.unwrap_err().to_string();
    assert!(error.contains("e5/tokenizer.json is missing"), "{error}");
    bucket.put("e5/tokenizer.json", b"{}".to_vec()).await;
    let files = bucket.remote("e5/q4 0.gguf").list().await.unwrap();
    let names: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["q4 0.gguf", "tokenizer.json"]);
}

#[tokio::test]
async fn half_fetched_and_damaged_states_are_not_used() {
    let bucket = Bucket::with_model().await;
    bucket.find(CopyCheck::Files).await.unwrap();
    let state = bucket.state();
    let left = state.with_file_name(".part-killed");
    fs::create_dir_all(left.join("files")).unwrap();
    for damage in ["files/model.safetensors", "files/config.json", "manifest.json"] {
        // The same number of bytes.
        let mut bytes = fs::read(state.join(damage)).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(state.join(damage), &bytes).unwrap();
        bucket.find(CopyCheck::Files).await.unwrap();
        assert_ne!(fs::read(state.join(damage)).unwrap(), bytes, "{damage}");
    }
    fs::remove_file(state.join("files/tokenizer.json")).unwrap();
    bucket.find(CopyCheck::Files).await.unwrap();
    assert_eq!(bucket.folders(), [state], "incomplete states are removed");
}

#[tokio::test]
async fn weights_that_differ_from_their_hash_are_fetched_again() {
    let bucket = Bucket::with_model().await;
    let hash = bucket.find(CopyCheck::Files).await.unwrap().weights_hash().unwrap();
    let manifest = bucket.state().join("manifest.json");
    let written = fs::read_to_string(&manifest).unwrap();
    assert!(written.contains(&hash));
    fs::write(&manifest, written.replace(&hash, "7c1e")).unwrap();
    bucket.find(CopyCheck::Files).await.unwrap();
    assert!(!fs::read_to_string(&manifest).unwrap().contains(&hash), "the quick check does not hash large files");
    bucket.find(CopyCheck::Weights).await.unwrap();
    assert!(fs::read_to_string(&manifest).unwrap().contains(&hash));
}

#[tokio::test]
async fn two_fetches_at_once_leave_one_complete_state() {
    let bucket = Bucket::with_model().await;
    let both = futures::join!(bucket.find(CopyCheck::Weights), bucket.find(CopyCheck::Weights));
    assert_eq!(both.0.unwrap().weights_hash().unwrap(), both.1.unwrap().weights_hash().unwrap());
    assert!(bucket.state().join("manifest.json").is_file());
}

#[tokio::test]
async fn object_that_changes_during_the_fetch_ends_it() {
    let bucket = Bucket::with_model().await;
    let remote = bucket.remote("models/tiny");
    let files = remote.list().await.unwrap();
    bucket.put("models/tiny/tokenizer.json", b"{\"version\": 2}".to_vec()).await;
    let error = find_listed(&remote, &files, &bucket.cache(), CopyCheck::Files).await.unwrap_err();
    assert!(matches!(&error, BucketModelError::Changed { file, .. } if file == "tokenizer.json"), "{error}");
    assert!(bucket.folders().is_empty(), "nothing is kept");
    bucket.find(CopyCheck::Files).await.unwrap();
}

#[tokio::test]
async fn large_file_comes_in_several_requests() {
    let bucket = Bucket::empty();
    let bytes: Vec<u8> = (0..(33 << 20) + 5_u32).map(|n| (n % 251) as u8).collect();
    bucket.put("m/config.json", bytes.clone()).await;
    let remote = bucket.remote("m");
    let files = remote.list().await.unwrap();
    let path = bucket.root.path().join("deep/config.json");
    let hash = remote.download(&files[0], &path).await.unwrap();
    assert_eq!(hash, blake3::hash(&bytes).to_hex().as_str());
    assert!(fs::read(path).unwrap() == bytes);
}

#[tokio::test]
async fn store_that_fails_is_an_error_without_a_copy() {
    let bucket = Bucket::empty();
    let failed = || {
        let source = object_store::Error::Generic { store: "S3", source: "connection refused".into() };
        BucketModelError::Store { model: ADDRESS.to_owned(), source }
    };
    let error = find_unlisted(failed(), ADDRESS, &bucket.cache(), CopyCheck::Files).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Environment);
    assert!(error.hint().unwrap().contains("endpoint"), "{:?}", error.hint());

    let bucket = Bucket::with_model().await;
    bucket.find(CopyCheck::Files).await.unwrap();
    assert!(find_unlisted(failed(), ADDRESS, &bucket.cache(), CopyCheck::Weights).await.is_ok());
}
