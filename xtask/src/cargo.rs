//! Cargo, as we call it.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The cargo that runs us, without what it tells only us: passed on, that would look like a changed environment to
/// build scripts.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    forget_ourselves(&mut command);
    command
}

/// The nightly toolchain's cargo. Through `rustup run`, because the variables of the toolchain that runs us are set.
pub(crate) fn nightly_cargo() -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo"]);
    forget_ourselves(&mut command);
    for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    command
}

fn forget_ourselves(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let ours = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name == "CARGO_BIN_NAME"
        });
        if ours {
            command.env_remove(name);
        }
    }
}

/// Builds all programs of the workspace and says where the one of this name is.
pub(crate) fn build_program(name: &str) -> Result<PathBuf, String> {
    let mut build = cargo();
    build.args(["build", "--workspace", "--bins", "--message-format", "json-render-diagnostics"]);
    let output =
        build.stderr(Stdio::inherit()).output().map_err(|err| format!("cargo does not start: {err}"))?;
    if !output.status.success() {
        return Err("the build failed".to_owned());
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut programs = messages.lines().filter_map(|line| json_text(line, "executable")).map(PathBuf::from);
    let found = programs.find(|path| path.file_stem().is_some_and(|stem| stem == name));
    found.ok_or_else(|| format!("the build made no program {name}"))
}

/// Where cargo puts what it builds.
pub(crate) fn target_directory() -> Result<PathBuf, String> {
    let output = cargo().args(["metadata", "--no-deps", "--format-version", "1"]).output();
    let output = output.map_err(|err| format!("cargo does not start: {err}"))?;
    json_text(&String::from_utf8_lossy(&output.stdout), "target_directory")
        .map(PathBuf::from)
        .ok_or_else(|| "cargo does not say where the target directory is".to_owned())
}

/// The text of the first field of this name: enough of JSON for what cargo writes about paths.
fn json_text(json: &str, field: &str) -> Option<String> {
    let start = format!("\"{field}\":\"");
    let mut chars = json.split_once(&start)?.1.chars();
    let mut text = String::new();
    loop {
        match chars.next()? {
            '"' => return Some(text),
            '\\' => match chars.next()? {
                'u' => {
                    let digits: String = chars.by_ref().take(4).collect();
                    text.push(char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?);
                }
                escaped => text.push(escaped),
            },
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::json_text;

    #[test]
    fn texts_are_found_and_unescaped() {
        let line = r#"{"name":"cutover","executable":"/a \"b\"\\c\u00e9","fresh":true}"#;
        assert_eq!(json_text(line, "executable").as_deref(), Some("/a \"b\"\\cé"));
        assert_eq!(json_text(r#"{"executable":null}"#, "executable"), None);
        assert_eq!(json_text(r#"{"executable":"cut off"#, "executable"), None);
    }
}
