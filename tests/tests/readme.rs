//! Each promise of the README links to the tests that prove it.

use std::fs;

use polylance_tests::repository;

#[test]
fn every_promise_links_to_a_test() {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let (_, promises) = readme.split_once("## What it promises").unwrap();
    let promises = promises.split("\n## ").next().unwrap();
    let numbered: Vec<&str> =
        promises.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_digit())).collect();
    assert_eq!(numbered.len(), 7);
    for promise in numbered {
        let links: Vec<&str> = promise.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()).collect();
        assert!(links.iter().all(|link| repository().join(link).exists()), "{links:?} of: {promise}");
        let is_test = |link: &&str| {
            let text = fs::read_to_string(repository().join(link)).unwrap();
            text.contains("#[test]") || text.contains("#[tokio::test]")
        };
        assert!(links.iter().any(is_test), "no test is linked from: {promise}");
    }
}
