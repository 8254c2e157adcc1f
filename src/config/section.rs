//! How settings are declared: each with its meaning, its type and its default in one place.

/// Sections of the settings. A setting without a default has that of its type; `=> name` adds a method
/// that gives milliseconds as a [`Duration`](std::time::Duration).
macro_rules! sections {
    ($(
        $(#[$about:meta])*
        pub struct $section:ident {
            $(
                $(#[$meaning:meta])*
                pub $setting:ident: $type:ty $(= $default:expr $(=> $duration:ident)?)?,
            )*
        }
    )*) => {$(
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        $(#[$about])*
        pub struct $section {
            $($(#[$meaning])* pub $setting: $type,)*
        }

        impl $crate::config::section::Section for $section {
            const NAMES: &'static [&'static str] =
                &[$($crate::config::section::plain(stringify!($setting)),)*];
        }

        impl $section {
            $($($(
                pub(crate) fn $duration(&self) -> std::time::Duration {
                    std::time::Duration::from_millis(self.$setting)
                }
            )?)?)*
        }

        impl Default for $section {
            fn default() -> $section {
                $section { $($setting: sections!(@default $($default)?),)* }
            }
        }
    )*};
    (@default) => { Default::default() };
    (@default $default:expr) => { $default };
}

/// A section of the settings.
pub(super) trait Section {
    /// The names of its settings.
    const NAMES: &'static [&'static str];
}

/// The name of a setting without the `r#` before those that are words of Rust.
pub(super) const fn plain(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', ..] => name.split_at(2).1,
        _ => name,
    }
}

/// Settings that have one of a few names. The message says which, where it has another.
macro_rules! choices {
    ($(
        $(#[$about:meta])*
        pub enum $choice:ident: $message:literal {
            $($(#[$meaning:meta])* $variant:ident = $name:literal,)*
        }
    )*) => {$(
        $(#[$about])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub enum $choice {
            $($(#[$meaning])* #[serde(rename = $name)] $variant,)*
        }

        impl TryFrom<String> for $choice {
            type Error = &'static str;

            fn try_from(name: String) -> Result<$choice, &'static str> {
                match name.as_str() {
                    $($name => Ok($choice::$variant),)*
                    _ => Err($message),
                }
            }
        }
    )*};
}

pub(super) use {choices, sections};
