// node validate_fhir.mjs BUNDLE.json: exit 1 with the errors of npm's `fhir`, 77 where it is not installed.
// Looked for in FHIR_NODE_MODULES, else as node does.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire((process.env.FHIR_NODE_MODULES ?? process.cwd()) + "/");
let fhir;
try {
  fhir = require("fhir");
} catch {
  process.exit(77);
}
const { valid, messages } = new fhir.Fhir().validate(JSON.parse(readFileSync(process.argv[2], "utf8")));
const errors = messages.filter((one) => one.severity === "error" || one.severity === "fatal");
for (const one of errors) console.log(`${one.location}: ${one.message}`);
process.exit(valid && !errors.length ? 0 : 1);
