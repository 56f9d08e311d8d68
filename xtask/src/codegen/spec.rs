//! The table of AMQP classes, methods and fields, as `crates/amqp/spec/methods.toml` holds it, and
//! the Rust names made from its names.

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Spec {
    #[serde(rename = "class")]
    pub(super) classes: Vec<Class>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Class {
    pub(super) name: String,
    pub(super) id: u16,
    pub(super) doc: String,
    #[serde(rename = "method")]
    pub(super) methods: Vec<Method>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Method {
    pub(super) name: String,
    pub(super) id: u16,
    pub(super) doc: String,
    #[serde(default)]
    pub(super) fields: Vec<Field>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Field {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: FieldKind,
    #[serde(default)]
    pub(super) reserved: bool,
    #[serde(default)]
    pub(super) doc: String,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum FieldKind {
    Octet,
    Short,
    Long,
    Longlong,
    Bit,
    Shortstr,
    Longstr,
    Table,
}

impl Method {
    /// Its struct's name, such as `GetOk`.
    pub(super) fn rust_name(&self) -> String {
        camel(&self.name)
    }

    /// Its variant's name, such as `BasicGetOk`.
    pub(super) fn variant(&self, class: &Class) -> String {
        camel(&class.name) + &self.rust_name()
    }

    /// The fields that are in the struct.
    pub(super) fn kept(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| !field.reserved)
    }

    pub(super) fn keeps(&self, kind: FieldKind) -> bool {
        self.kept().any(|field| field.kind == kind)
    }

    /// Whether the struct borrows from the frame it was read from.
    pub(super) fn borrows(&self) -> bool {
        self.keeps(FieldKind::Shortstr) || self.keeps(FieldKind::Longstr)
    }

    /// The fields, neighbouring bits together.
    pub(super) fn runs(&self) -> impl Iterator<Item = &[Field]> {
        self.fields.chunk_by(|a, b| a.kind == FieldKind::Bit && b.kind == FieldKind::Bit)
    }
}

impl FieldKind {
    pub(super) fn rust_type(self) -> &'static str {
        match self {
            Self::Octet => "u8",
            Self::Short => "u16",
            Self::Long => "u32",
            Self::Longlong => "u64",
            Self::Bit => "bool",
            Self::Shortstr => "&'a str",
            Self::Longstr => "&'a [u8]",
            Self::Table => "Table",
        }
    }
}

fn camel(name: &str) -> String {
    let mut camel = String::new();
    for word in name.split('-') {
        let (first, rest) = word.split_at(1);
        camel.push_str(&first.to_uppercase());
        camel.push_str(rest);
    }
    camel
}
