// Gives containers variables and mounts, by rules that match on their annotations.

import config from "locule:plugin/config@0.1.0";
import env from "locule:plugin/adjust-env@0.1.0";
import mounts from "locule:plugin/adjust-mounts@0.1.0";

import { rulesOf } from "./rules.js";

export const lifecycle = {
  configure() {
    rulesOf(config.get());
    return { stages: ["create"] };
  },

  // It is called for `create` alone, which is all that it has registered for.
  handle(_stage, container) {
    const annotations = new Map(container.annotations);
    for (const rule of rulesOf(config.get())) {
      if (applies(rule, annotations)) {
        apply(rule);
      }
    }
  },
};

function applies({ match }, annotations) {
  if (match === undefined) {
    return true;
  }
  return match.value === undefined
    ? annotations.has(match.annotation)
    : annotations.get(match.annotation) === match.value;
}

function apply(rule) {
  for (const [name, value] of Object.entries(rule.env ?? {})) {
    attempt(`the variable ${name}`, () => env.set(name, value));
  }
  for (const mount of rule.mounts ?? []) {
    attempt(`the mount at ${mount.destination}`, () => mounts.set(mount));
  }
}

// An adjustment that the host does not take throws an error whose payload is the refusal.
function attempt(what, adjust) {
  try {
    adjust();
  } catch ({ payload: { tag, val } }) {
    const why = tag === "conflict" ? `the plugin ${val} has set it before` : val;
    // What an export throws has to be the failure of the interface.
    throw { code: 0, message: `cannot set ${what}: ${why}` };
  }
}
