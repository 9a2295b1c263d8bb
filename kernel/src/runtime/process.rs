//! What `exec` is to start: the process of the document that `--process` names, or what the options of the line make of the
//! container's own.
//!
//! The idea: the low-level runtime gets a document in both cases, since that alone says all of a process. So what its options mean is
//! said here, as runc and crun have it. Of a document nothing is changed here, so that what engines write reaches the low-level
//! runtime.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use ringfence_sentry::failure::{Attempt, Failure};
use serde_json::{Value, json};

use super::command_line::{
    ADDITIONAL_GIDS, APPARMOR, CAP, CWD, CommandLine, ENV, NO_NEW_PRIVS, PROCESS_LABEL, TTY, USER,
};

/// The sets to which `--cap` adds.
const SETS: [&str; 4] = ["bounding", "effective", "permitted", "ambient"];

/// The process that the line asks for, in a container whose own is `own`.
pub fn asked(line: &CommandLine, own: Value) -> Result<Value, Failure> {
    if let Some(path) = &line.process {
        let path = Path::new(path);
        let doing = format!("process {}", path.display());
        let text = fs::read(path).attempt(&doing)?;
        let process: Value = serde_json::from_slice(&text).attempt(&doing)?;
        return match process.is_object() {
            true => Ok(process),
            false => Err(Failure::setup(format!("{doing}: it is no object"))),
        };
    }
    let mut process = own;
    if !process.is_object() {
        process = json!({});
    }
    let words = line.program.iter().map(|word| text(word));
    process["args"] = json!(words.collect::<Result<Vec<_>, _>>()?);
    // Only the container's own program is on the engine's terminal by default.
    process["terminal"] = json!(false);
    for (name, value) in &line.of_process {
        let value = text(value)?;
        match *name {
            CWD => process["cwd"] = json!(value),
            ENV => add(&mut process, "env", json!(value)),
            USER => become_user(&mut process, value)?,
            ADDITIONAL_GIDS => {
                for group in value.split(',') {
                    let group = number(ADDITIONAL_GIDS, group)?;
                    let user = &mut process["user"];
                    add(user, "additionalGids", json!(group));
                }
            }
            PROCESS_LABEL => process["selinuxLabel"] = json!(value),
            APPARMOR => process["apparmorProfile"] = json!(value),
            CAP => {
                for set in SETS {
                    add(&mut process["capabilities"], set, json!(value));
                }
            }
            TTY => process["terminal"] = json!(value != "false"),
            NO_NEW_PRIVS => process["noNewPrivileges"] = json!(value != "false"),
            _ => {}
        }
    }
    Ok(process)
}

/// Adds to a list that an object has.
fn add(object: &mut Value, list: &str, value: Value) {
    if !object.is_object() {
        *object = json!({});
    }
    match object[list].as_array_mut() {
        Some(list) => list.push(value),
        None => object[list] = json!([value]),
    }
}

/// `UID` or `UID:GID`
fn become_user(process: &mut Value, given: &str) -> Result<(), Failure> {
    let (user, group) = match given.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (given, None),
    };
    if !process["user"].is_object() {
        process["user"] = json!({"uid": 0, "gid": 0});
    }
    process["user"]["uid"] = json!(number(USER, user)?);
    if let Some(group) = group {
        process["user"]["gid"] = json!(number(USER, group)?);
    }
    Ok(())
}

fn number(option: &str, given: &str) -> Result<u32, Failure> {
    given.parse().map_err(|_| {
        Failure::setup(format!(
            "--{option} {given:?}: it is no number: give numbers of users and groups, UID or UID:GID"
        ))
    })
}

fn text(word: &OsStr) -> Result<&str, Failure> {
    word.to_str().ok_or_else(|| {
        Failure::setup(format!(
            "{word:?} is no UTF-8, and no process can be described with it: name a document by --process"
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn process(words: &str) -> Value {
        let own = json!({
            "args": ["sleep", "1"], "cwd": "/own", "env": ["A=1"], "terminal": true, "future": [1],
            "user": {"uid": 7, "gid": 8}, "capabilities": {"bounding": ["CAP_KILL"]},
        });
        let words = words.split(' ').map(OsString::from);
        asked(&CommandLine::read(words.collect()), own).expect("a process")
    }

    #[test]
    fn a_line_says_what_differs_from_the_containers_own() {
        let expected = json!({
            "args": ["sh", "-t"], "cwd": "/own", "env": ["A=1"], "terminal": false, "future": [1],
            "user": {"uid": 7, "gid": 8}, "capabilities": {"bounding": ["CAP_KILL"]},
        });
        assert_eq!(process("exec c sh -t"), expected);
        assert_eq!(process("exec -d -- c sh -t"), expected);
        let all = process(
            "exec --cwd /x -e B=2 --env=C=3 -u 5 -g 1 --additional-gids 2 --cap CAP_CHOWN --no-new-privs -dt c sh",
        );
        let expected = json!({
            "args": ["sh"], "cwd": "/x", "env": ["A=1", "B=2", "C=3"], "terminal": true, "future": [1],
            "user": {"uid": 5, "gid": 8, "additionalGids": [1, 2]}, "noNewPrivileges": true,
            "capabilities": {"bounding": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_CHOWN"],
                             "permitted": ["CAP_CHOWN"], "ambient": ["CAP_CHOWN"]},
        });
        assert_eq!(all, expected);
        assert_eq!(
            process("exec --user 5:6 --tty=false c sh")["user"],
            json!({"uid": 5, "gid": 6})
        );
    }

    #[test]
    fn a_user_is_a_number() {
        let words = ["exec", "-u", "root", "c", "sh"].map(OsString::from);
        let failure = asked(&CommandLine::read(words.into()), Value::Null).expect_err("a failure");
        assert!(
            failure.message.starts_with("--user \"root\": "),
            "{failure}"
        );
    }
}
