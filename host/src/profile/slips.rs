//! Keys of `profile.yml` that nothing reads. They are most likely slips, and a slip such as `hook:` leaves a job unguarded. They are no
//! errors: profiles of other versions must keep working.

use super::keys::HOST_KEYS;
use super::{Layer, Profile};

impl Profile {
    /// What to tell its author of keys at the top of its documents that nothing reads. `plugin_keys` are those that its plugin reads; none:
    /// the plugin does not say, so only what looks like another key is a slip.
    #[must_use]
    pub fn slips(&self, plugin_keys: Option<&[&str]>) -> Vec<String> {
        let known: Vec<&str> = plugin_keys
            .into_iter()
            .flatten()
            .chain(&HOST_KEYS)
            .copied()
            .collect();
        // Layers below the one that names the plugin were written for another one.
        let own = self.layers.iter().rposition(|layer| names_component(layer));
        let mut slips = Vec::new();
        for (n, layer) in self.layers.iter().enumerate() {
            let unread = layer
                .settings
                .keys()
                .filter(|key| !known.contains(&key.as_str()));
            for key in unread {
                let told = format!(
                    "profile `{}`: nothing reads the key `{}`",
                    layer.name,
                    key.escape_debug()
                );
                match nearest(key, &known) {
                    Some(meant) => slips.push(format!("{told}; did you mean `{meant}`?")),
                    None if plugin_keys.is_some() && n >= own.unwrap_or(0) => {
                        slips.push(format!("{told}; known are: {}", known.join(", ")));
                    }
                    None => {}
                }
            }
        }
        slips
    }
}

fn names_component(layer: &Layer) -> bool {
    let plugin = layer.settings.get("plugin");
    plugin.and_then(|plugin| plugin.get("component")).is_some()
}

/// The known key that this one is a misspelling of.
fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    let key = key.to_lowercase();
    // Short words are near to many others.
    let most = if key.chars().count() < 5 { 1 } else { 2 };
    let distance = |known: &&str| strsim::osa_distance(&key, known);
    let nearest = known.iter().copied().min_by_key(distance)?;
    (distance(&nearest) <= most).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_pen_are_near_and_other_words_are_not() {
        let near = |key| nearest(key, &HOST_KEYS);
        for (key, meant) in [
            ("extnds", "extends"),
            ("hook", "hooks"),
            ("auto_rp", "auto_pr"),
            ("timout", "timeout"),
            ("Plugins", "plugin"),
            ("pull_requests", "pull_request"),
        ] {
            assert_eq!(near(key), Some(meant), "{key}");
        }
        for key in [
            "agent",
            "mode",
            "model",
            "env",
            "x-note",
            "append_prompt",
            "",
        ] {
            assert_eq!(near(key), None, "{key}");
        }
    }
}
