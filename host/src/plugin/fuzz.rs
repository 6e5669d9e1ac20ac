//! What the fuzz targets in `fuzz/` call, and what the tests drive for a bounded time everywhere.
//!
//! Each function takes bytes that mean nothing, lets the host work on them, and panics only if a promise is broken: the host itself
//! must never panic, and what it lets through must keep the rules.

use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::bindings::types::{
    Argument, Budget, Content, EnvValue, EnvVar, FileEntry, FileMode, LaunchPlan, Location, Place,
    SessionPlan, Source, StopPlan, Transcript,
};
use super::grants::{EffectiveGrants, Grants, Role};
use super::limits::Limits;
use super::request::{Layer, LayerFile};
use super::{CheckedPlan, HostOptions, Places, PluginHost, Policies, inspect};

/// Reads choices out of bytes; at their end every choice is the first one.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn count(&mut self, most: usize) -> usize {
        usize::from(self.byte()) % (most + 1)
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        let at = usize::from(self.byte()) % from.len().max(1);
        from.get(at).cloned()
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (!self.byte().is_multiple_of(2)).then(|| make(self))
    }

    /// Words that matter to the rules, and whatever else there is.
    fn text(&mut self) -> String {
        const WORDS: [&str; 16] = [
            "",
            "..",
            ".",
            "/",
            "a",
            "A",
            "a/b",
            "a//b",
            "x\0",
            "\u{202e}",
            "\u{1b}[2J",
            "e\u{301}",
            "\u{e9}",
            "settings.json",
            "LD_PRELOAD",
            "--x",
        ];
        let mut text = String::new();
        for _ in 0..self.count(4) {
            match self.byte() {
                n @ 0..64 => text.push_str(WORDS.get(usize::from(n) % WORDS.len()).unwrap_or(&"")),
                n @ 64..200 => text.push(char::from(n)),
                n => text.push_str(&"x".repeat(usize::from(n))),
            }
        }
        text
    }

    fn location(&mut self) -> Location {
        let places = [Place::ConfigDir, Place::WorkDir, Place::TempDir];
        Location {
            prefix: self.text(),
            place: self.pick(&places).unwrap_or(Place::ConfigDir),
            path: self.text(),
        }
    }

    fn file(&mut self) -> FileEntry {
        let content = if self.byte().is_multiple_of(2) {
            Content::Bytes(self.text().into_bytes())
        } else {
            Content::Copy(Source {
                layer: self.byte().into(),
                path: self.text(),
            })
        };
        FileEntry {
            path: self.text(),
            content,
            mode: FileMode::Regular,
        }
    }

    fn env(&mut self) -> EnvVar {
        let name = self.text();
        let value = match self.byte() % 5 {
            0 => EnvValue::Literal(self.text()),
            1 => EnvValue::Path(self.location()),
            2 => EnvValue::Secret(self.text()),
            3 => EnvValue::OptionalSecret(self.text()),
            _ => EnvValue::Inherit(self.text()),
        };
        EnvVar { name, value }
    }

    fn plan(&mut self, programs: &[String]) -> LaunchPlan {
        let known = self.pick(programs).unwrap_or_default();
        LaunchPlan {
            files: (0..self.count(6)).map(|_| self.file()).collect(),
            keep: (0..self.count(2)).map(|_| self.text()).collect(),
            program: if self.byte() < 200 {
                known
            } else {
                self.text()
            },
            arguments: (0..self.count(4))
                .map(|_| {
                    if self.byte().is_multiple_of(2) {
                        Argument::Literal(self.text())
                    } else {
                        Argument::Path(self.location())
                    }
                })
                .collect(),
            env: (0..self.count(3)).map(|_| self.env()).collect(),
            stdin: None,
            time_limit: None,
            budget: Budget {
                cost_usd: self.maybe(|c| f64::from_bits(u64::from(c.byte()) << 56)),
                turns: None,
            },
            session: SessionPlan {
                id: self.maybe(Self::text),
                transcript: self.maybe(|c| Transcript {
                    pattern: c.text(),
                    marker: c.text(),
                }),
            },
            stop: match self.byte() % 3 {
                0 => StopPlan::Terminate,
                1 => StopPlan::Interrupt,
                _ => StopPlan::CreateFile(self.location()),
            },
        }
    }
}

fn policies() -> &'static Policies {
    static POLICIES: OnceLock<Policies> = OnceLock::new();
    POLICIES.get_or_init(|| Policies::bundled().unwrap_or_default())
}

fn programs() -> Vec<String> {
    let mut names: Vec<String> = policies().programs().map(str::to_owned).collect();
    names.sort();
    names
}

fn layers() -> [Layer; 1] {
    let file = |path: &str| LayerFile {
        path: path.to_owned(),
        executable: false,
        bytes: "x".into(),
    };
    [Layer {
        name: "layer".to_owned(),
        settings: serde_json::json!({}),
        files: vec![file("a"), file("settings.json")],
    }]
}

fn checked(plan: LaunchPlan, granted: &Grants) -> Option<CheckedPlan> {
    let grants = EffectiveGrants::new(&Grants::all(), granted, &Grants::all(), Role::Plugin);
    CheckedPlan::new(plan, &layers(), &Limits::default(), policies(), &grants).ok()
}

/// A component: looked at, and where it looks like one, compiled and started under short limits.
///
/// # Panics
/// If the host breaks a promise.
pub fn component(bytes: &[u8]) {
    static HOST: OnceLock<Option<Arc<PluginHost>>> = OnceLock::new();
    if inspect::inspect(bytes, &Limits::default()).is_err() {
        return;
    }
    let limits = Limits {
        compile_time: Duration::from_secs(20),
        describe_time: Duration::from_millis(500),
        ..Limits::default()
    };
    let options = HostOptions {
        limits,
        ..HostOptions::default()
    };
    let Some(host) = HOST.get_or_init(|| PluginHost::new(options).ok()) else {
        return;
    };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    else {
        return;
    };
    let report = runtime.block_on(host.check(bytes.to_vec()));
    assert_eq!(report.ok, report.error.is_none());
}

/// A launch plan made of the bytes: what passes stays below its places. Says whether it passed.
///
/// # Panics
/// If the host breaks a promise.
pub fn plan(bytes: &[u8]) -> bool {
    let mut choices = Choices(bytes);
    let all = choices.byte().is_multiple_of(2);
    let granted = if all {
        Grants::all()
    } else {
        Grants::default()
    };
    let Some(plan) = checked(choices.plan(&programs()), &granted) else {
        return false;
    };
    let places = Places {
        config_dir: PathBuf::from("/places/config"),
        work_dir: PathBuf::from("/places/work"),
        temp_dir: PathBuf::from("/places/temp"),
    };
    for file in plan.tree.files() {
        let plain = |part| matches!(part, Component::Normal(_));
        let path = Path::new(&file.path);
        assert!(path.components().all(plain), "{:?} escapes", file.path);
        assert!(!file.path.contains(char::is_control), "{:?}", file.path);
    }
    let resolved = plan.resolve(&places);
    if let Some(stop) = resolved.stop_file.map(|file| file.path()) {
        let below = stop.strip_prefix("/places").unwrap_or(Path::new(".."));
        let plain = |part| matches!(part, Component::Normal(_));
        let is_below = below.components().count() > 1 && below.components().all(plain);
        assert!(is_below, "{}", stop.display());
    }
    true
}

/// Bytes as a file that the agent reads as its settings, without any grant: what passes is written in one form, which passes again.
///
/// # Panics
/// If the host breaks a promise.
pub fn settings(bytes: &[u8]) {
    const FILES: [&str; 4] = ["settings.json", ".mcp.json", ".config.json", "agents/a.md"];
    let Some((choice, bytes)) = bytes.split_first() else {
        return;
    };
    let programs = programs();
    let mut choices = Choices(std::slice::from_ref(choice));
    let path = choices.pick(&FILES).unwrap_or_default();
    for program in programs {
        let plan = |content: &[u8]| LaunchPlan {
            files: vec![FileEntry {
                path: path.to_owned(),
                content: Content::Bytes(content.to_vec()),
                mode: FileMode::Regular,
            }],
            keep: Vec::new(),
            program: program.clone(),
            arguments: Vec::new(),
            env: Vec::new(),
            stdin: None,
            time_limit: None,
            budget: Budget {
                cost_usd: None,
                turns: None,
            },
            session: SessionPlan {
                id: None,
                transcript: None,
            },
            stop: StopPlan::Terminate,
        };
        let Some(once) = checked(plan(bytes), &program_only(&program)) else {
            continue;
        };
        let written = once
            .tree
            .get(path)
            .map(|file| file.bytes.clone())
            .unwrap_or_default();
        let again = checked(plan(&written), &program_only(&program));
        let again = again.and_then(|plan| plan.tree.get(path).map(|file| file.bytes.clone()));
        assert_eq!(
            again.as_ref(),
            Some(&written),
            "the written form is not stable"
        );
    }
}

fn program_only(program: &str) -> Grants {
    let program = super::Grant::new(super::GrantKind::Program, program);
    [program].into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small generator whose numbers are the same everywhere.
    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn below(&mut self, most: usize) -> usize {
            usize::try_from(self.next() % (most.max(1) as u64)).unwrap_or(0)
        }

        fn bytes(&mut self, length: usize) -> Vec<u8> {
            (0..length).map(|_| self.next().to_le_bytes()[0]).collect()
        }

        /// A few changes of bytes, cuts and repetitions.
        fn mutated(&mut self, seed: &[u8]) -> Vec<u8> {
            let mut bytes = seed.to_vec();
            for _ in 0..=self.below(3) {
                let at = self.below(bytes.len());
                match self.below(4) {
                    0 => bytes.truncate(at),
                    1 => bytes.insert(at, self.next().to_le_bytes()[0]),
                    2 => {
                        let end = (at + 1 + self.below(40)).min(bytes.len());
                        let part = bytes.get(at..end).unwrap_or_default().to_vec();
                        bytes.splice(at..at, part);
                    }
                    _ => {
                        let bit = 1 << self.below(8);
                        if let Some(byte) = bytes.get_mut(at) {
                            *byte ^= bit;
                        }
                    }
                }
            }
            bytes
        }
    }

    #[test]
    fn plans_of_any_form_are_refused_or_keep_the_rules() {
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
        for _ in 0..3_000 {
            let length = numbers.below(200);
            plan(&numbers.bytes(length));
        }
        // Found by libFuzzer: it passes, and stops by a file among the temporary ones.
        assert!(plan(&[
            0x28, 6, 0, 0, 0, 0, 0, 0, 0, 0x30, 0xfe, 0x8c, 0xc2, 0x7a, 6, 0x2c
        ]));
    }

    #[test]
    fn paths_of_all_words_are_refused_or_keep_the_rules() {
        let words = 0..16_u8;
        let mut passed = 0;
        for first in words.clone() {
            for second in words.clone() {
                for third in words.clone() {
                    // Everything granted, the first program, and one empty file, whose path has three words.
                    let bytes = [0, 0, 1, 0, 0, 3, first, second, third];
                    passed += u32::from(plan(&bytes));
                }
            }
        }
        assert!(passed > 100, "only {passed} plans were let through");
    }

    #[test]
    fn settings_of_any_form_are_refused_or_written_in_a_form_that_stays() {
        let seeds: [&[u8]; 6] = [
            b"\0{\"a\": {\"b\": [1, 2.5, null, true]}, \"c\": \"\\u006f\"}",
            b"\0{\"env\": {\"A\": \"1\"}, \"hooks\": {}, \"permissions\": {\"deny\": [\"x\"]}}",
            b"\x01{\"servers\": {\"s\": {\"command\": \"id\", \"args\": []}}}",
            b"\x02{\"x\": 1e400, \"y\": -0.0, \"z\": 18446744073709551616}",
            b"\x03---\nname: a\ntools: [b]\n---\ntext\n",
            b"\0{\"a\": 1, \"a\": 2} // no",
        ];
        let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
        for seed in seeds {
            settings(seed);
            for _ in 0..300 {
                settings(&numbers.mutated(seed));
            }
        }
    }

    #[test]
    fn components_of_any_form_are_told_and_never_panic() {
        let old = include_bytes!("../../../tests/fixtures/plugin-1.0/guest.wasm");
        let mut numbers = Numbers(0x0123_4567_89ab_cdef);
        for _ in 0..400 {
            let bytes = numbers.mutated(old);
            drop(inspect::inspect(&bytes, &Limits::default()));
            let length = numbers.below(64);
            component(&numbers.bytes(length));
        }
        // Compiling costs the most, so fewer go all the way.
        for _ in 0..6 {
            component(&numbers.mutated(old));
        }
    }
}
