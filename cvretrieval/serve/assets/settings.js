// How is searched: length of the list, verification, expansion; what this index cannot do is switched off, with the reason.
import { byId } from "./dom.js";

const WHY_NOT = {
  verify: "This index keeps no local features to verify by.",
  expand: "There is no query expansion for this kind of index.",
};

export class Settings {
  constructor(info, onChange) {
    this.can = info.can;
    this.k = byId("k");
    this.k.max = info.limits.k;
    this.value = info.defaults;
    for (const name of ["verify", "expand"]) {
      const why = byId(`${name}-why`);
      byId(name).disabled = !info.can[name];
      why.textContent = WHY_NOT[name];
      why.hidden = info.can[name];
    }
    for (const input of [this.k, byId("verify"), byId("expand")]) input.addEventListener("change", onChange);
  }

  get value() {
    if (this.k.validity.valid) this.valid = Number(this.k.value);
    return { k: this.valid, verify: byId("verify").checked, expand: byId("expand").checked };
  }

  set value({ k, verify, expand }) {
    this.k.value = this.valid = k;
    byId("verify").checked = verify && this.can.verify;
    byId("expand").checked = expand && this.can.expand;
  }
}
