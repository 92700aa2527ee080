//! The variables that configure the hub, for models, datasets and tables alike.

use std::{env, fmt, fs, path::PathBuf};

/// The hub, unless `HF_ENDPOINT` is set.
const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// The user's token. It is sent to the hub itself, and shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token's text, for a header of a request.
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// A text in which the token is not readable.
    pub fn redact(&self, text: &str) -> String {
        text.replace(&self.0, "…")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Where the hub is, and how it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubSettings {
    /// The hub's address, without a slash at the end: `HF_ENDPOINT`.
    pub endpoint: String,
    /// The user's token: `HF_TOKEN`, or the file that `hf auth login` writes (`HF_TOKEN_PATH`, `HF_HOME/token`).
    pub token: Option<Token>,
    /// Whether no request may be sent: `HF_HUB_OFFLINE`.
    pub offline: bool,
}

impl HubSettings {
    /// The settings in the environment of this process.
    pub fn from_env() -> Self {
        Self::from_variables(|name| env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let value = |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let endpoint = value("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
        let home = || {
            let cache = || value("XDG_CACHE_HOME").map(PathBuf::from);
            let cache = cache().or_else(|| Some(PathBuf::from(value("HOME")?).join(".cache")));
            value("HF_HOME").map(PathBuf::from).or_else(|| Some(cache?.join("huggingface")))
        };
        let token_file = || {
            let path = value("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(home()?.join("token")))?;
            let token = fs::read_to_string(path).ok()?.trim().to_owned();
            (!token.is_empty()).then_some(token)
        };
        let is_set = |value: String| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on");
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: value("HF_TOKEN").or_else(token_file).map(Token),
            offline: value("HF_HUB_OFFLINE").is_some_and(is_set),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> HubSettings {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        HubSettings::from_variables(find)
    }

    #[test]
    fn empty_variables_count_as_unset() {
        let none = settings(&[("HOME", "/nonexistent")]);
        assert_eq!((none.endpoint.as_str(), none.token, none.offline), (DEFAULT_ENDPOINT, None, false));
        let empty = settings(&[("HF_ENDPOINT", ""), ("HF_TOKEN", " "), ("HF_HUB_OFFLINE", "0"), ("HOME", "/nowhere")]);
        assert_eq!((empty.endpoint.as_str(), empty.token, empty.offline), (DEFAULT_ENDPOINT, None, false));
        let set = settings(&[("HF_ENDPOINT", "http://hub/"), ("HF_TOKEN", "hf_x\n"), ("HF_HUB_OFFLINE", "True")]);
        assert_eq!((set.endpoint.as_str(), set.token.unwrap().secret(), set.offline), ("http://hub", "hf_x", true));
    }

    #[test]
    fn token_file_is_read_unless_the_variable_is_set() {
        let folder = env::temp_dir().join(format!("polylance-hub-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("token"), "hf_file\n").unwrap();
        let home = folder.to_str().unwrap();
        assert_eq!(settings(&[("HF_HOME", home)]).token.unwrap().secret(), "hf_file");
        assert_eq!(settings(&[("HF_HOME", home), ("HF_TOKEN", "hf_env")]).token.unwrap().secret(), "hf_env");
        let path = folder.join("token").display().to_string();
        assert_eq!(settings(&[("HF_TOKEN_PATH", &path)]).token.unwrap().secret(), "hf_file");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn token_is_not_shown() {
        let token = Token("hf_secret".to_owned());
        assert_eq!(format!("{token:?}"), "Token(…)");
        assert_eq!(token.redact("bad token hf_secret"), "bad token …");
    }
}
