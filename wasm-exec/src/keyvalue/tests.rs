use super::*;
use std::{fs::OpenOptions, mem::ManuallyDrop, path::Path};

fn file(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn opened(file: Option<File>, most_bytes: u64) -> Bucket {
    let stores = Stores::new(vec![StoreGrant { name: "a".into(), file, most_bytes }]);
    stores.open().unwrap();
    stores.find("a").unwrap()
}

/// In memory, and in a file.
fn both(most_bytes: u64, test: impl Fn(&Bucket)) {
    test(&opened(None, most_bytes));
    let folder = tempfile::tempdir().unwrap();
    test(&opened(Some(file(&folder.path().join("a"))), most_bytes));
}

fn set(key: &str, value: &str) -> (String, Option<Vec<u8>>) {
    (key.to_owned(), Some(value.as_bytes().to_vec()))
}

fn text(bucket: &Bucket, key: &str) -> Option<String> {
    bucket.get(key).unwrap().map(|value| String::from_utf8(value).unwrap())
}

#[test]
fn what_was_set_is_there_until_it_is_deleted() {
    both(1 << 20, |bucket| {
        assert_eq!(text(bucket, "k"), None);
        bucket.change(&[set("k", "v"), set("l", "w"), set("k", "x")]).unwrap();
        assert_eq!((text(bucket, "k").as_deref(), text(bucket, "l").as_deref()), (Some("x"), Some("w")));
        bucket.change(&[("k".into(), None), ("none".into(), None)]).unwrap();
        assert_eq!(text(bucket, "k"), None);
        let many = bucket.get_many(vec!["l".into(), "k".into()]).unwrap();
        assert_eq!(many, [Some(("l".into(), b"w".to_vec())), None]);
    });
}

#[test]
fn a_full_store_takes_no_more_and_gives_room_back() {
    both(300, |bucket| {
        bucket.change(&[set("a", &"x".repeat(100))]).unwrap();
        let refused = bucket.change(&[set("b", "y"), set("c", &"x".repeat(100))]).unwrap_err();
        assert!(matches!(refused, Failure::Full(300)), "{refused}");
        assert_eq!(text(bucket, "b"), None, "all of a change, or nothing");
        assert!(matches!(bucket.update("n", |_| Ok((Some(vec![0; 200]), ()))), Err(Failure::Full(300))));
        bucket.change(&[("a".into(), None)]).unwrap();
        bucket.change(&[set("c", &"x".repeat(200))]).unwrap();
    });
}

#[test]
fn keys_come_in_pages_that_leave_none_out() {
    both(1 << 20, |bucket| {
        let entries: Vec<_> = (0..2500).map(|number| set(&format!("{number:04}"), "")).collect();
        bucket.change(&entries).unwrap();
        let (mut by_count, mut by_name) = (Vec::new(), Vec::new());
        loop {
            let page = bucket.keys(&After::Count(by_count.len() as u64)).unwrap();
            by_count.extend(page.keys);
            if !page.more {
                break;
            }
        }
        loop {
            let page = bucket.keys(&by_name.last().cloned().map_or(After::Count(0), After::Key)).unwrap();
            by_name.extend(page.keys);
            if !page.more {
                break;
            }
        }
        let all: Vec<_> = entries.into_iter().map(|(key, _)| key).collect();
        assert_eq!((&by_count, &by_name), (&all, &all));
        assert!(bucket.keys(&After::Count(u64::MAX)).unwrap().keys.is_empty());
    });
}

#[test]
fn numbers_are_text_and_stay_in_range() {
    both(1 << 20, |bucket| {
        assert_eq!(bucket.increment("n", 5, 0, 10).unwrap(), 5);
        assert_eq!(bucket.increment("n", 5, 0, 10).unwrap(), 10);
        assert!(bucket.increment("n", 1, 0, 10).is_err());
        assert_eq!(text(bucket, "n").as_deref(), Some("10"));
        bucket.change(&[set("n", "ten")]).unwrap();
        assert!(bucket.increment("n", 1, 0, 10).unwrap_err().to_string().contains("no number"));
    });
}

#[test]
fn a_swap_fails_where_somebody_was_in_between() {
    both(1 << 20, |bucket| {
        let first = bucket.begin_swap("k".into()).unwrap();
        let second = bucket.begin_swap("k".into()).unwrap();
        assert!(first.finish(b"1".to_vec()).unwrap().is_none());
        let again = second.finish(b"2".to_vec()).unwrap().expect("somebody was");
        assert_eq!(text(bucket, "k").as_deref(), Some("1"));
        assert!(again.finish(b"2".to_vec()).unwrap().is_none());
        assert_eq!(text(bucket, "k").as_deref(), Some("2"));
    });
}

#[test]
fn what_is_too_much_at_once_is_refused() {
    both(1 << 30, |bucket| {
        assert!(bucket.change(&[(String::from_utf8(vec![b'k'; KEY_BYTES + 1]).unwrap(), Some(Vec::new()))]).is_err());
        assert!(bucket.change(&[("k".into(), Some(vec![0; VALUE_BYTES + 1]))]).is_err());
        bucket.change(&[("k".into(), Some(vec![0; VALUE_BYTES - 10]))]).unwrap();
        let often = vec!["k".to_owned(); 3];
        assert!(bucket.get_many(often).unwrap_err().to_string().contains("at once"));
    });
}

#[test]
fn a_file_keeps_what_was_set_for_who_opens_it_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    // Not dropped: the process ends without a word.
    let killed = ManuallyDrop::new(opened(Some(file(&path)), 1000));
    killed.change(&[set("k", "v")]).unwrap();
    let again = opened(Some(file(&path)), 100);
    assert_eq!(text(&again, "k").as_deref(), Some("v"));
    assert!(again.change(&[set("l", &"x".repeat(40))]).is_err(), "what is there counts");
}

#[test]
fn stores_that_are_open_are_not_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = Some(file(&folder.path().join("a")));
    let stores = Stores::new(vec![StoreGrant { name: "a".into(), file, most_bytes: 1000 }]);
    stores.open().unwrap();
    stores.find("a").unwrap().change(&[set("k", "v")]).unwrap();
    stores.open().unwrap();
    assert_eq!(text(&stores.find("a").unwrap(), "k").as_deref(), Some("v"));
}

#[test]
fn a_file_that_is_none_of_ours_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    std::fs::write(&path, [b'x'; 10_000]).unwrap();
    let stores = Stores::new(vec![StoreGrant { name: "a".into(), file: Some(file(&path)), most_bytes: 1 }]);
    let error = stores.open().unwrap_err().to_string();
    assert!(error.contains("key-value store a: "), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), [b'x'; 10_000]);
}

/// It had been begun on a full disk, and could not be used when there was room again.
#[test]
fn a_file_that_was_never_finished_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    std::fs::write(&path, [[0; 9].as_slice(), &[b'x'; 5000]].concat()).unwrap();
    opened(Some(file(&path)), 1000).change(&[set("k", "v")]).unwrap();
    assert_eq!(text(&opened(Some(file(&path)), 1000), "k").as_deref(), Some("v"));
}

#[test]
fn a_program_that_names_no_store_gets_the_default_or_the_only_one() {
    let named = |names: &[&str]| {
        let grant = |name: &&str| StoreGrant { name: (*name).into(), file: None, most_bytes: 1 };
        Stores::new(names.iter().map(grant).collect())
    };
    assert_eq!(named(&["a"]).find("").unwrap().index, 0);
    assert_eq!(named(&["a", "default"]).find("").unwrap().index, 1);
    assert!(named(&["a", "b"]).find("").is_none());
    assert!(named(&["a"]).find("default").is_none());
}
