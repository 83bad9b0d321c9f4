//! Rows as Beam's Python SDK encodes them, and transforms that know fields.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use purlin::coders::{Coder, CoderError, Value, spec};
use purlin::prelude::*;
use purlin::schema::{Date, Decimal, FieldKind, MicrosInstant, RowSchema, parse_schema};

#[derive(Clone, Debug, PartialEq, Schema)]
struct Inner {
    x: i32,
    y: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Schema)]
struct Everything {
    byte: i8,
    short: i16,
    int: i32,
    long: i64,
    float: f32,
    double: f64,
    text: String,
    flag: bool,
    data: Vec<u8>,
    maybe: Option<i64>,
    list: Vec<i32>,
    holes: Vec<Option<String>>,
    map: BTreeMap<String, i64>,
    inner: Inner,
    maybe_inner: Option<Inner>,
    inners: Vec<Inner>,
    micros: MicrosInstant,
    day: Date,
    price: Decimal,
}

#[derive(Clone, Copy, Debug, PartialEq, Schema)]
enum Color {
    Red,
    Green = 7,
    #[schema(name = "BLUE")]
    Blue,
}

#[derive(Clone, Debug, PartialEq, Schema)]
enum Shape {
    Number(i64),
    Text(String),
    Nothing,
}

#[derive(Clone, Debug, PartialEq, Schema)]
struct Logical {
    millis: Timestamp,
    color: Color,
    shape: Shape,
    code: [u8; 4],
}

/// What Python wrote: `data/make_rows.py`.
struct Python(serde_json::Value);

impl Python {
    fn read() -> Python {
        Python(serde_json::from_str(include_str!("../data/rows.json")).unwrap())
    }

    fn bytes(value: &serde_json::Value) -> Vec<u8> {
        let text = value.as_str().unwrap();
        (0..text.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
            .collect()
    }

    fn rows(&self, name: &str) -> Vec<Vec<u8>> {
        self.0[name].as_array().unwrap().iter().map(Self::bytes).collect()
    }

    fn schema(&self, name: &str) -> RowSchema {
        parse_schema(&Self::bytes(&self.0[name]).into()).unwrap()
    }
}

fn everything() -> [Everything; 2] {
    [
        Everything {
            byte: 1,
            short: -300,
            int: -70000,
            long: -5_000_000_000,
            float: 1.5,
            double: -2.25,
            text: "grüße".into(),
            flag: true,
            data: vec![0, 0xff],
            maybe: Some(7),
            list: vec![1, -2, 3],
            holes: vec![Some("a".into()), None],
            map: [("k".to_string(), -9)].into(),
            inner: Inner { x: 5, y: None },
            maybe_inner: Some(Inner {
                x: 6,
                y: Some("six".into()),
            }),
            inners: vec![
                Inner {
                    x: 1,
                    y: Some("a".into()),
                },
                Inner { x: 2, y: None },
            ],
            micros: MicrosInstant(1_234_567_890_123_456),
            day: Date(19782),
            price: "-12.50".parse().unwrap(),
        },
        Everything {
            byte: 127,
            short: i16::MAX,
            int: i32::MAX,
            long: i64::MAX,
            float: 0.0,
            double: 0.0,
            text: String::new(),
            flag: false,
            data: vec![],
            maybe: None,
            list: vec![],
            holes: vec![],
            map: BTreeMap::new(),
            inner: Inner {
                x: 0,
                y: Some(String::new()),
            },
            maybe_inner: None,
            inners: vec![],
            micros: MicrosInstant(-1),
            day: Date(-1),
            price: Decimal::new(1234567890123456789012345678, 0),
        },
    ]
}

#[test]
fn rows_are_as_python_writes_them() {
    let python = Python::read();
    let rows = python.rows("everything");
    assert_eq!(rows.len(), 2);
    for (ours, theirs) in everything().iter().zip(&rows) {
        assert_eq!(&ours.to_row(), theirs);
        assert_eq!(&Everything::from_row(theirs).unwrap(), ours);
    }
    let logical = |shape| Logical {
        millis: Timestamp::from_millis(1_500_000_000_123),
        color: Color::Green,
        shape,
        code: *b"abcd",
    };
    let shapes = [Shape::Number(-3), Shape::Text("x".into()), Shape::Nothing];
    for (shape, theirs) in shapes.into_iter().zip(python.rows("logical")) {
        assert_eq!(logical(shape.clone()).to_row(), theirs);
        assert_eq!(Logical::from_row(&theirs).unwrap(), logical(shape));
    }
}

#[test]
fn schemas_are_as_python_writes_them() {
    let python = Python::read();
    let theirs = python.schema("everything_schema");
    for (ours, theirs) in Everything::schema().fields().iter().zip(theirs.fields()) {
        assert_eq!(ours.name, theirs.name);
        // Python's decimals are ones of a fixed precision, which are encoded alike.
        if ours.name != "price" {
            assert_eq!(ours.field_type.to_string(), theirs.field_type.to_string());
        }
    }
    let theirs = python.schema("logical_schema");
    for (ours, theirs) in Logical::schema().fields().iter().zip(theirs.fields()) {
        assert_eq!(ours.name, theirs.name);
        let (FieldKind::Logical(ours), FieldKind::Logical(theirs)) =
            (&ours.field_type.kind, &theirs.field_type.kind)
        else {
            panic!("{ours:?} and {theirs:?} are logical types");
        };
        assert_eq!(ours.urn, theirs.urn);
        if ours.urn.starts_with("beam:") {
            assert_eq!(ours, theirs);
        }
    }
}

#[test]
fn a_schema_survives_its_proto() {
    for schema in [Everything::schema(), Logical::schema(), Shape::schema()] {
        let read = parse_schema(schema.payload()).unwrap();
        assert_eq!(read.fields(), schema.fields());
    }
    let enumeration = Logical::schema().fields()[1].field_type.clone();
    let FieldKind::Logical(enumeration) = enumeration.kind else {
        panic!("an enumeration")
    };
    let argument = enumeration.argument.unwrap();
    assert_eq!(argument.field_type.to_string(), "map<string, int32>");
    let text = String::from_utf8_lossy(&argument.value).into_owned();
    assert!(
        text.contains("Red") && text.contains("BLUE") && !text.contains("Blue"),
        "{text:?}"
    );
}

#[test]
fn bytes_that_are_no_row_are_errors() {
    let row = everything()[0].to_row();
    for length in 0..row.len() {
        assert!(Everything::from_row(&row[..length]).is_err(), "{length} bytes");
    }
    // Null where none may be; a field that is missing.
    let error = Inner::from_row(&[2, 1, 1, 0]).unwrap_err().to_string();
    assert!(error.contains("field \"x\" is null"), "{error}");
    assert!(Inner::from_row(&[0, 0]).is_err());
    // A field that the writer did not have is null, where it may be.
    assert_eq!(Inner::from_row(&[1, 0, 5]).unwrap(), Inner { x: 5, y: None });
    assert!(Color::from_bytes(&[3]).is_err());
    // No case, or two.
    assert!(Shape::from_row(&[3, 1, 7]).is_err());
    assert!(Shape::from_row(&[3, 1, 4, 1, 1, b'x']).is_err());
    assert!(
        Logical::from_row(
            &Logical {
                millis: Timestamp::MIN,
                color: Color::Red,
                shape: Shape::Nothing,
                code: [0; 4]
            }
            .to_row()[..10]
        )
        .is_err()
    );
}

#[derive(Clone, Debug, PartialEq, Schema)]
struct Many {
    a: Vec<Option<i64>>,
    b: Option<Vec<u8>>,
    c: HashMap<i32, Option<String>>,
    d: Option<Inner>,
    e: Option<f64>,
    f: Option<Decimal>,
    g: Option<MicrosInstant>,
    h: Option<i16>,
    i: Option<Shape>,
    j: [u8; 3],
}

fn many() -> impl Strategy<Value = Many> {
    let shape = prop_oneof![
        any::<i64>().prop_map(Shape::Number),
        ".{0,5}".prop_map(Shape::Text),
        Just(Shape::Nothing)
    ];
    let inner = (any::<i32>(), proptest::option::of(".{0,5}")).prop_map(|(x, y)| Inner { x, y });
    let micros = (i64::MIN / 2..i64::MAX / 2).prop_map(MicrosInstant);
    (
        any::<Vec<Option<i64>>>(),
        any::<Option<Vec<u8>>>(),
        any::<HashMap<i32, Option<String>>>(),
        proptest::option::of(inner),
        proptest::option::of(-1e9..1e9),
        proptest::option::of((any::<i128>(), -9..99i32).prop_map(|(n, s)| Decimal::new(n, s))),
        proptest::option::of(micros),
        any::<Option<i16>>(),
        proptest::option::of(shape),
        any::<[u8; 3]>(),
    )
        .prop_map(|(a, b, c, d, e, f, g, h, i, j)| Many {
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
            i,
            j,
        })
}

proptest! {
    #[test]
    fn rows_round_trip(value in many()) {
        let row = value.to_row();
        prop_assert_eq!(&Many::from_row(&row).unwrap(), &value);
        prop_assert_eq!(&Many::from_bytes(&value.to_bytes()).unwrap(), &value);
        // The coder that reads any schema reads these rows, and writes them back the same.
        let parse = |payload: &bytes::Bytes| parse_schema(payload).map_err(CoderError::schema);
        let coder = Coder::from_spec(&Many::coder(), &parse).unwrap();
        let bytes = value.to_bytes();
        let dynamic = Value::decode(&coder, &mut &bytes[..], false).unwrap();
        let mut again = Vec::new();
        dynamic.encode(&coder, &mut again, false).unwrap();
        prop_assert_eq!(again, bytes);
    }

    #[test]
    fn any_bytes_are_a_row_or_an_error(bytes: Vec<u8>) {
        let _ = Many::from_row(&bytes);
        let _ = Everything::from_row(&bytes);
    }
}

#[test]
fn a_coder_without_schemas_leaves_rows_alone() {
    let coder = Coder::from_spec(&Everything::coder(), &spec::no_schemas);
    assert!(coder.unwrap_err().to_string().contains("schemas"));
}

#[derive(Clone, Debug, PartialEq, Schema)]
struct Purchase {
    user: String,
    place: Place,
    cents: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Schema)]
struct Place {
    country: Option<String>,
    city: String,
}

fn bought(user: &str, country: Option<&str>, city: &str, cents: Option<i64>) -> Purchase {
    Purchase {
        user: user.into(),
        place: Place {
            country: country.map(str::to_owned),
            city: city.into(),
        },
        cents,
    }
}

fn purchases(p: &Pipeline) -> PCollection<Purchase> {
    p.apply_named(
        "Purchases",
        Create::new([
            bought("ann", Some("IT"), "Rome", Some(500)),
            bought("ann", Some("IT"), "Pisa", Some(200)),
            bought("bob", None, "Rome", Some(1)),
            bought("bob", None, "Rome", None),
            bought("cat", Some("FR"), "Nice", None),
        ]),
    )
}

#[derive(Clone, Debug, PartialEq, Schema)]
struct ByCountry {
    country: Option<String>,
    total: Option<i64>,
    users: i64,
    longest: i64,
}

#[test]
fn groups_are_aggregated() {
    let p = TestPipeline::new();
    let report = purchases(&p).apply(
        GroupByFields::<ByCountry>::on(["place.country"])
            .aggregate("cents", Sum::<i64>::new(), "total")
            .aggregate("user", Count::<String>::new(), "users")
            .aggregate_with(
                |p: &Purchase| p.place.city.len() as i64,
                Max::<i64>::new(),
                "longest",
            ),
    );
    let row = |country: Option<&str>, total, users, longest| ByCountry {
        country: country.map(str::to_owned),
        total,
        users,
        longest,
    };
    PAssert::that(&report).contains_in_any_order([
        row(Some("IT"), Some(700), 2, 4),
        row(None, Some(1), 2, 4),
        // Nothing was summed.
        row(Some("FR"), None, 1, 4),
    ]);
    p.run();
}

#[test]
fn rows_are_keys() {
    let p = TestPipeline::new();
    let groups = purchases(&p).apply(GroupByRow::<OnlyUser>::new());
    let sizes = groups.map("Size", |(key, rows)| (key.user, rows.len()));
    PAssert::that(&sizes).contains_in_any_order([("ann".into(), 2), ("bob".into(), 2), ("cat".into(), 1)]);
    let counts = purchases(&p)
        .map("Place", |p: Purchase| (p.place, 1i64))
        .group_by_key("ByPlace")
        .map("Count", |(place, ones)| (place.city, ones.len()));
    PAssert::that(&counts).contains_in_any_order([
        ("Rome".into(), 1),
        ("Rome".into(), 2),
        ("Pisa".into(), 1),
        ("Nice".into(), 1),
    ]);
    p.run();
}

#[derive(Clone, Debug, PartialEq, Schema)]
struct OnlyUser {
    user: String,
}

#[derive(Clone, Debug, PartialEq, Schema)]
struct Selected {
    cents: Option<i64>,
    country: Option<String>,
}

#[test]
fn fields_are_selected() {
    let p = TestPipeline::new();
    let selected = purchases(&p).apply(Select::<Selected>::new().field("country", "place.country"));
    let row = |cents, country: Option<&str>| Selected {
        cents,
        country: country.map(str::to_owned),
    };
    PAssert::that(&selected).contains_in_any_order([
        row(Some(500), Some("IT")),
        row(Some(200), Some("IT")),
        row(Some(1), None),
        row(None, None),
        row(None, Some("FR")),
    ]);
    p.run();
}

#[derive(Clone, Debug, Schema)]
struct Wrong {
    usr: String,
    cents: i64,
    place: String,
}

#[test]
fn wrong_fields_are_told_when_the_pipeline_is_built() {
    let p = Pipeline::new();
    let input = purchases(&p);
    let _: PCollection<Wrong> = input.select("Narrow");
    input.apply(Select::<Selected>::new().field("country", "user.name"));
    input.apply(Select::<Selected>::new().field("contry", "user"));
    input.rename::<OnlyUser>("Lose", &[]);
    input.apply(
        GroupByFields::<ByCountry>::on(["cuntry"])
            .aggregate("user", Sum::<i64>::new(), "total")
            .aggregate("cents", Sum::<i64>::new(), "users"),
    );
    input.apply(GroupByFields::<ByCountry>::on(["place.country"]).aggregate(
        "cents",
        Sum::<i64>::new(),
        "total",
    ));
    let users = p.apply_named("Users", Create::new([OnlyUser { user: "ann".into() }]));
    (input.clone(), users.clone()).apply(Join::inner_on(["cents"], ["user"]));
    (input, users).apply(Join::full_on(["usr"], ["user", "user"]));
    let error = p.build().unwrap_err().to_string();
    for expected in [
        r#"transform "Narrow": Purchase has no field "usr"; did you mean "user"?; its fields are: user: string, "#,
        r#"transform "Narrow": field "cents" of Purchase is int64?, but field "cents" of Wrong needs int64"#,
        r#"field "place" of Purchase is row<"#,
        r#"transform "Select": field "user" of Purchase is string, which has no fields of its own"#,
        r#"transform "Select_2": Selected has no field "contry"; did you mean "country"?"#,
        r#"transform "Lose": field "cents" of Purchase is in no field of OnlyUser"#,
        r#"transform "GroupByFields": Purchase has no field "cuntry""#,
        r#"field "user" of Purchase is string, but the aggregation into "total" needs int64"#,
        r#"field "users" of ByCountry is int64, but the aggregation of "cents" gives int64?"#,
        r#"transform "GroupByFields_2": field "users" of ByCountry is neither a key nor the result of an aggregation"#,
        r#"transform "Join.Inner": field "cents" of Purchase is int64?, but "user" of OnlyUser, which it is to equal, is string"#,
        r#"transform "Join.Full": a join needs as many fields on the left as on the right"#,
    ] {
        assert!(error.contains(expected), "{expected}\nis not in\n{error}");
    }
}

type Row = (i64, String);
type Both = (Option<Row>, Option<Row>);
type Given = (Option<(i64, &'static str)>, Option<(i64, &'static str)>);

fn joined(row: Given) -> Both {
    let owned = |side: Option<(i64, &str)>| side.map(|(key, text)| (key, text.to_owned()));
    (owned(row.0), owned(row.1))
}

#[test]
fn joins_give_what_they_say() {
    let p = TestPipeline::new();
    let side = |name: &str, rows: [(i64, &str); 3]| {
        p.apply_named(name, Create::new(rows.map(|(key, text)| (key, text.to_string()))))
    };
    let left = side("L", [(1, "a"), (1, "b"), (2, "c")]);
    let right = side("R", [(1, "x"), (1, "y"), (3, "z")]);
    let key = |row: &Row| row.0;
    let both = [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")];
    let both = both.map(|(a, b)| joined((Some((1, a)), Some((1, b)))));
    let only_left = joined((Some((2, "c")), None));
    let only_right = joined((None, Some((3, "z"))));
    let expect = |name: &str, rows: PCollection<Both>, more: &[_]| {
        let expected = both.iter().chain(more).cloned().collect::<Vec<_>>();
        PAssert::that(&rows).named(name).contains_in_any_order(expected);
    };
    let sides = || (left.clone(), right.clone());
    let inner = |rows: PCollection<(Row, Row)>| rows.map("Wrap", |(a, b)| (Some(a), Some(b)));
    let outer = |rows: PCollection<(Row, Option<Row>)>| rows.map("Wrap", |(a, b)| (Some(a), b));
    expect("inner", inner(sides().apply(Join::inner(key, key))), &[]);
    expect(
        "broadcast inner",
        inner(sides().apply(Join::inner(key, key).broadcast())),
        &[],
    );
    expect(
        "left",
        outer(sides().apply(Join::left(key, key))),
        std::slice::from_ref(&only_left),
    );
    expect(
        "broadcast left",
        outer(sides().apply(Join::left(key, key).broadcast())),
        std::slice::from_ref(&only_left),
    );
    let rights = sides()
        .apply(Join::right(key, key))
        .map("Wrap", |(a, b)| (a, Some(b)));
    expect("right", rights, std::slice::from_ref(&only_right));
    expect(
        "full",
        sides().apply(Join::full(key, key)),
        &[only_left, only_right],
    );
    p.run();
}

#[test]
fn joins_by_fields_match_nullable_with_required() {
    let p = TestPipeline::new();
    let users = p.apply_named(
        "Users",
        Create::new(["ann", "dan"].map(|user| OnlyUser { user: user.into() })),
    );
    let report = (users, purchases(&p))
        .apply(Join::full_on(["user"], ["user"]))
        .map("Show", |(user, purchase)| {
            (user.map(|u: OnlyUser| u.user), purchase.map(|p: Purchase| p.user))
        });
    let row = |a: Option<&str>, b: Option<&str>| (a.map(str::to_owned), b.map(str::to_owned));
    PAssert::that(&report).contains_in_any_order([
        row(Some("ann"), Some("ann")),
        row(Some("ann"), Some("ann")),
        row(Some("dan"), None),
        row(None, Some("bob")),
        row(None, Some("bob")),
        row(None, Some("cat")),
    ]);
    p.run();
}

#[derive(Clone, Debug, PartialEq, Schema)]
struct Wrapper<T> {
    id: i64,
    value: T,
}

#[derive(Clone, Debug, PartialEq, Schema)]
enum Event {
    Click {
        x: i32,
        y: Option<i32>,
    },
    Key(String),
    #[schema(name = "closed")]
    Close,
}

#[test]
fn generic_structs_and_cases_with_fields_have_schemas() {
    assert_eq!(
        Wrapper::<Option<String>>::schema().to_string(),
        "id: int64, value: string?"
    );
    assert_eq!(
        Event::schema().to_string(),
        "Click: row<x: int32, y: int32?>?, Key: string?, closed: boolean?"
    );
    for event in [
        Event::Click { x: 1, y: None },
        Event::Key("a".into()),
        Event::Close,
    ] {
        let row = Wrapper {
            id: 3,
            value: vec![event],
        };
        assert_eq!(Wrapper::from_row(&row.to_row()).unwrap(), row);
        assert_eq!(Wrapper::from_bytes(&row.to_bytes()).unwrap(), row);
    }
}
