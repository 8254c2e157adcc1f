//! The bodies of a load: clicks as Opptima documents them, made up, or bodies that are given.
//!
//! A few campaigns have most of the clicks, as in life: the second has half as many as the first, the
//! third a third (Zipf's law). Each click can be told from all others by its `destination`.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use jiff::tz::Offset;

/// Opptima's clocks show Colombian time.
const OFFSET: Offset = Offset::constant(-5);

/// City, region, country, latitude, longitude, and how many clicks come from there.
const CITIES: &[(&str, u32)] = &[
    (
        r#""cityName":"Bogota","regionName":"Distrito Capital de Bogota","countryName":"Colombia","latitude":4.60971,"longitude":-74.081749"#,
        34,
    ),
    (
        r#""cityName":"Medellin","regionName":"Antioquia","countryName":"Colombia","latitude":6.25184,"longitude":-75.563591"#,
        17,
    ),
    (
        r#""cityName":"Cali","regionName":"Valle del Cauca","countryName":"Colombia","latitude":3.43722,"longitude":-76.522499"#,
        12,
    ),
    (
        r#""cityName":"Barranquilla","regionName":"Atlantico","countryName":"Colombia","latitude":10.96854,"longitude":-74.781319"#,
        8,
    ),
    (
        r#""cityName":"Cartagena","regionName":"Bolivar","countryName":"Colombia","latitude":10.39972,"longitude":-75.514442"#,
        6,
    ),
    (
        r#""cityName":"Bucaramanga","regionName":"Santander","countryName":"Colombia","latitude":7.12539,"longitude":-73.119804"#,
        4,
    ),
    (
        r#""cityName":"Pereira","regionName":"Risaralda","countryName":"Colombia","latitude":4.81333,"longitude":-75.696111"#,
        3,
    ),
    (
        r#""cityName":"Cúcuta","regionName":"Norte de Santander","countryName":"Colombia","latitude":7.89391,"longitude":-72.507819"#,
        3,
    ),
    (
        r#""cityName":"Quito","regionName":"Pichincha","countryName":"Ecuador","latitude":-0.22985,"longitude":-78.524948"#,
        3,
    ),
    (
        r#""cityName":"Lima","regionName":"Lima","countryName":"Peru","latitude":-12.04318,"longitude":-77.028236"#,
        3,
    ),
    (
        r#""cityName":"Miami","regionName":"Florida","countryName":"United States","latitude":25.77427,"longitude":-80.193657"#,
        4,
    ),
    (
        r#""cityName":"Madrid","regionName":"Madrid","countryName":"Spain","latitude":40.4165,"longitude":-3.70256"#,
        3,
    ),
];

/// Devices with their browsers, and how many clicks come from there.
const DEVICES: &[(&str, u32)] = &[
    (r#""device_type":"mobile","browser":"Chrome""#, 46),
    (r#""device_type":"mobile","browser":"Safari""#, 19),
    (r#""device_type":"desktop","browser":"Chrome""#, 20),
    (r#""device_type":"desktop","browser":"Edge""#, 6),
    (r#""device_type":"desktop","browser":"Firefox""#, 4),
    (r#""device_type":"tablet","browser":"Safari""#, 5),
];

/// Contacts of an account.
const CONTACTS: u32 = 1_000_000;

/// The bodies of one connection.
#[derive(Clone)]
pub enum Bodies {
    /// Made up.
    Made(Clicks),
    /// Given, taken in turn.
    Given(Arc<[Bytes]>),
}

impl Bodies {
    /// The body of the click with this number.
    pub fn get(&mut self, number: u64) -> &[u8] {
        match self {
            Bodies::Made(clicks) => clicks.make(number),
            Bodies::Given(bodies) => {
                let place = number.checked_rem(bodies.len() as u64).unwrap_or(0);
                usize::try_from(place).ok().and_then(|place| bodies.get(place)).map_or(b"", |b| b)
            }
        }
    }
}

/// Makes clicks up.
#[derive(Clone)]
pub struct Clicks {
    run: Arc<str>,
    campaigns: Arc<Weights>,
    cities: Arc<Weights>,
    devices: Arc<Weights>,
    random: fastrand::Rng,
    /// The time in its own words, and for which second they are.
    time: (i64, String),
    body: Vec<u8>,
}

/// How often each of several comes, summed up from the first.
struct Weights(Vec<f64>);

impl Weights {
    fn new(weights: impl Iterator<Item = f64>) -> Arc<Weights> {
        let sums = weights.scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        Arc::new(Weights(sums.collect()))
    }

    fn choose(&self, random: &mut fastrand::Rng) -> usize {
        let point = random.f64() * self.0.last().copied().unwrap_or(0.0);
        self.0.partition_point(|sum| *sum <= point).min(self.0.len().saturating_sub(1))
    }
}

impl Clicks {
    /// Clicks of so many campaigns, marked with the name of this run.
    pub fn new(run: &str, campaigns: u32) -> Clicks {
        let of = |table: &[(&str, u32)]| {
            Weights::new(table.iter().map(|(_, weight)| f64::from(*weight)))
        };
        Clicks {
            run: run.into(),
            campaigns: Weights::new((1..=campaigns.max(1)).map(|rank| 1.0 / f64::from(rank))),
            cities: of(CITIES),
            devices: of(DEVICES),
            random: fastrand::Rng::new(),
            time: (i64::MIN, String::new()),
            body: Vec::new(),
        }
    }

    fn make(&mut self, number: u64) -> &[u8] {
        let now = Timestamp::now();
        if self.time.0 != now.as_second() {
            let text = OFFSET.to_datetime(now).strftime("%Y-%m-%d %H:%M:%S").to_string();
            self.time = (now.as_second(), text);
        }
        let campaign = self.campaigns.choose(&mut self.random);
        let (city, _) = CITIES[self.cities.choose(&mut self.random)];
        let (device, _) = DEVICES[self.devices.choose(&mut self.random)];
        let contact = self.random.u32(..CONTACTS);
        self.body.clear();
        // Memory takes everything.
        let _ = write!(
            self.body,
            r#"{{"type":"Email marketing","event":"click","campid":"{}","relid":"123",{city},{device},"timestamp":"{}","email":"contact{contact}@example.com","campaignName":"Campaign {campaign}","subject":"News of campaign {campaign}","contactId":"{}","destination":"https://www.example.com/offers/{}?click={}-{number}"}}"#,
            10_000 + campaign,
            self.time.1,
            112_000_000 + contact,
            contact % 7,
            self.run,
        );
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// The names and types of a JSON object's members.
    fn shape(body: &[u8]) -> BTreeMap<String, std::mem::Discriminant<serde_json::Value>> {
        let body: serde_json::Map<_, _> = serde_json::from_slice(body).expect("JSON");
        body.into_iter().map(|(name, value)| (name, std::mem::discriminant(&value))).collect()
    }

    #[test]
    fn clicks_look_as_documented() {
        let documented = include_bytes!("../../tests/fixtures/email-marketing-click.json");
        let mut clicks = Clicks::new("test", 10);
        for number in 0..100 {
            assert_eq!(shape(clicks.make(number)), shape(documented));
        }
    }

    #[test]
    fn campaigns_are_skewed_and_every_click_is_one_of_a_kind() {
        let mut clicks = Clicks::new("test", 100);
        let (mut campaigns, mut bodies) = (BTreeMap::<String, u32>::new(), BTreeSet::new());
        for number in 0..10_000 {
            let body = clicks.make(number);
            let click: serde_json::Value = serde_json::from_slice(body).expect("JSON");
            *campaigns.entry(click["campid"].to_string()).or_default() += 1;
            assert!(bodies.insert(click["destination"].to_string()));
        }
        // A fifth of all, by Zipf's law, and half of that.
        let (first, second) = (campaigns["\"10000\""], campaigns["\"10001\""]);
        assert!((1_700..2_200).contains(&first) && (750..1_200).contains(&second), "{campaigns:?}");
        assert!(campaigns.len() > 80, "{}", campaigns.len());
    }

    #[test]
    fn given_bodies_are_taken_in_turn() {
        let mut bodies = Bodies::Given([Bytes::from("a"), Bytes::from("b")].into());
        let taken: Vec<_> = (0..3).map(|number| bodies.get(number).to_owned()).collect();
        assert_eq!(taken, [b"a", b"b", b"a"]);
    }
}
