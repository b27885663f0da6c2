// The plugin's configuration: what may be in it.

// The rules in a configuration. Throws a failure that says what is wrong with it, and where.
export function rulesOf(json) {
  return configuration(JSON.parse(json) ?? {}, "").rules ?? [];
}

// Each of these takes a value and its place, a JSON pointer, and gives the value back if it is right.

const string = (value, place) =>
  typeof value === "string" ? value : wrong(place, "is not a string");

const optional = (check) => (value, place) =>
  value === undefined ? undefined : check(value, place);

const list = (check) => (value, place) =>
  Array.isArray(value)
    ? value.map((item, index) => check(item, `${place}/${index}`))
    : wrong(place, "is not a list");

const record = (check) => (value, place) =>
  typeof value === "object" && value !== null && !Array.isArray(value)
    ? check(Object.entries(value), place, value)
    : wrong(place, "is not an object");

// An object with any members, all of a kind.
const map = (check) =>
  record((entries, place) =>
    Object.fromEntries(entries.map(([name, item]) => [name, check(item, `${place}/${name}`)])),
  );

// An object with these members.
const members = (known) =>
  record((entries, place, value) => {
    const unknown = entries.find(([name]) => !Object.hasOwn(known, name));
    return unknown
      ? wrong(`${place}/${unknown[0]}`, `is unknown: there are ${Object.keys(known).join(", ")}`)
      : Object.fromEntries(
          Object.entries(known).map(([name, check]) => [
            name,
            check(value[name], `${place}/${name}`),
          ]),
        );
  });

const configuration = members({
  rules: optional(
    list(
      members({
        match: optional(members({ annotation: string, value: optional(string) })),
        env: optional(map(string)),
        mounts: optional(
          list(
            members({ destination: string, kind: string, source: string, options: list(string) }),
          ),
        ),
      }),
    ),
  ),
});

function wrong(place, why) {
  throw { code: 0, message: `the configuration is wrong: ${place || "it"} ${why}` };
}
