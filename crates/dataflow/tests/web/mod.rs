//! A web server in this process.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use chrono::Utc;

/// The responses of a web server in this process.
#[derive(Clone)]
pub(crate) struct Answers {
    pub(crate) content: Vec<u8>,
    /// Headers of every response with the content.
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) ranges: bool,
    pub(crate) length: bool,
    /// The status of a refusal.
    pub(crate) refuses: Option<u16>,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            content: b"{\"id\":\"a\",\"text\":\"of a\"}\n".to_vec(),
            headers: vec![],
            ranges: true,
            length: true,
            refuses: None,
        }
    }
}

/// A web server of one file, whose response depends on the number of the request.
pub(crate) struct Web {
    pub(crate) address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Web {
    pub(crate) fn start(answers: impl Fn(usize) -> Answers + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (requests, count) = (Arc::new(Mutex::new(Vec::new())), AtomicUsize::new(0));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = String::new();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                while !head.ends_with("\r\n\r\n") {
                    if reader.read_line(&mut head).unwrap_or(0) == 0 {
                        break;
                    }
                }
                let answers = answers(count.fetch_add(1, Ordering::Relaxed));
                seen.lock().unwrap().push(head.clone());
                // The client may have closed the connection.
                let _ = stream.write_all(&answers.to(&head));
            }
        });
        Self { address, requests }
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Answers {
    fn to(&self, head: &str) -> Vec<u8> {
        let header = |name: &str| {
            let line =
                head.lines().find_map(|line| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)));
            line.map(|(_, value)| value.to_owned())
        };
        let answer = |status: &str, headers: &[(&str, String)], body: &[u8]| {
            let mut answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\n");
            for (name, value) in headers {
                answer.extend([name, ": ", value.as_str(), "\r\n"]);
            }
            [answer.as_bytes(), b"\r\n", body].concat()
        };
        if let Some(status) = self.refuses {
            return answer(&format!("{status} Refused"), &[("content-length", "0".to_owned())], b"");
        }
        let tag = self.headers.iter().find(|(name, _)| *name == "etag").map(|(_, tag)| tag.clone());
        if let (Some(expected), Some(tag)) = (header("if-match"), tag)
            && expected != tag
        {
            return answer("412 Precondition Failed", &[("content-length", "0".to_owned())], b"");
        }
        let mut headers = self.headers.clone();
        let size = self.content.len();
        let range = header("range").filter(|_| self.ranges);
        let Some((first, last)) = range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.split_once('-'))
        else {
            if self.length {
                headers.push(("content-length", size.to_string()));
            }
            return answer("200 OK", &headers, &self.content);
        };
        let first: usize = first.parse().unwrap();
        if first >= size {
            headers.extend([("content-range", format!("bytes */{size}")), ("content-length", "0".to_owned())]);
            return answer("416 Range Not Satisfiable", &headers, b"");
        }
        let last = last.parse().unwrap_or(size).min(size - 1);
        let part = &self.content[first..=last];
        headers.push(("content-length", part.len().to_string()));
        headers.push(("content-range", format!("bytes {first}-{last}/{size}")));
        answer("206 Partial Content", &headers, part)
    }
}

pub(crate) fn http_date(seconds_ago: i64) -> String {
    (Utc::now() - chrono::TimeDelta::seconds(seconds_ago)).to_rfc2822().replace("+0000", "GMT")
}
