/* The portal: progressive enhancement only. Every page works without it. */
(function () {
  "use strict";
  var live = document.getElementById("live");
  function say(text) { if (live) { live.textContent = ""; setTimeout(function () { live.textContent = text; }, 50); } }
  function each(selector, act) { document.querySelectorAll(selector).forEach(act); }

  /* Copy: the button is hidden until this script can promise that it works. */
  each("[data-copy]", function (button) {
    var source = document.getElementById(button.dataset.copy);
    var label = button.querySelector("span") || button;
    var atRest = label.textContent;
    var failure = document.querySelector("[data-copy-failed]");
    button.hidden = false;
    function done(ok) {
      if (failure) { failure.hidden = ok; }
      if (!ok) { source.focus(); source.select(); say(failure ? failure.textContent : "Could not copy. Press Control C."); return; }
      label.textContent = "Copied";
      say("Copied");
      setTimeout(function () { label.textContent = atRest; }, 4000);
    }
    function old() {              /* plain http: no Clipboard API there */
      source.focus(); source.select();
      var ok = false;
      try { ok = document.execCommand("copy"); } catch (e) { ok = false; }
      done(ok);
    }
    button.addEventListener("click", function () {
      if (navigator.clipboard && window.isSecureContext) {
        navigator.clipboard.writeText(source.value).then(function () { done(true); }, old);
      } else { old(); }
    });
  });

  /* Show a password while somebody types it; never when it is sent. */
  each("[data-show]", function (button) {
    var input = document.getElementById(button.dataset.show);
    function show(on) {
      input.type = on ? "text" : "password";
      button.setAttribute("aria-pressed", on ? "true" : "false");
    }
    button.hidden = false;
    button.addEventListener("click", function () { show(input.type === "password"); });
    if (input.form) { input.form.addEventListener("submit", function () { show(false); }); }
  });

  /* A new key: keep type and permissions in agreement, and say in one sentence what will be made. */
  each(".keyform", function (form) {
    var summary = form.querySelector("[data-summary]");
    var preset = form.elements.preset;
    var groups = preset.querySelectorAll("optgroup");
    var secretOnly = groups[0], everywhere = groups[1];
    function chosen(name) { return form.querySelector("input[name=" + name + "]:checked"); }
    function fitPermissions() {
      var publishable = chosen("kind").value === "publishable";
      if (publishable && secretOnly.parentNode) {
        if (secretOnly.contains(preset.selectedOptions[0])) { everywhere.children[0].selected = true; }
        secretOnly.remove();
      } else if (!publishable && !secretOnly.parentNode) {
        preset.insertBefore(secretOnly, everywhere);
      }
      form.querySelectorAll(".scopes .choice").forEach(function (choice) {
        var box = choice.querySelector("input");
        choice.hidden = publishable && !("publishable" in box.dataset);
        if (choice.hidden) { box.checked = false; }
      });
      form.querySelectorAll(".scopegroup").forEach(function (group) {
        group.hidden = !group.querySelector(".choice:not([hidden])");
      });
    }
    function scopeCount() {
      var option = preset.selectedOptions[0];
      return Number(option.dataset.scopes || form.querySelectorAll("input[name=scopes]:checked").length);
    }
    function expiry() {
      var option = form.elements.expires.selectedOptions[0];
      if (option.dataset.day) { return "expires " + option.dataset.day; }
      if (option.value === "never") { return "never expires"; }
      var date = form.elements.date.value;
      return date ? "expires " + date + ", " + (form.elements.time.value || "00:00") + " " + form.elements.time.dataset.zone : "expires on a date you choose";
    }
    function tell() {
      var count = scopeCount();
      var kind = chosen("kind").value === "publishable" ? "Publishable" : "Secret";
      summary.textContent = kind + " " + chosen("environment").value + " key, " + count + (count === 1 ? " scope" : " scopes") + ", " + expiry() + ".";
    }
    form.addEventListener("input", function () { fitPermissions(); tell(); });
    fitPermissions(); tell();
  });

  /* Menus made of <details>: close on Escape and on a click elsewhere. */
  document.addEventListener("keydown", function (event) {
    if (event.key !== "Escape") { return; }
    var menu = document.querySelector("details.popmenu[open], details.mobnav[open]");
    if (menu) { menu.open = false; menu.querySelector("summary").focus(); }
  });
  document.addEventListener("click", function (event) {
    each("details.popmenu[open]", function (menu) { if (!menu.contains(event.target)) { menu.open = false; } });
  });

  /* One submit per form. */
  document.addEventListener("submit", function (event) {
    if (event.target.dataset.sent) { event.preventDefault(); return; }
    event.target.dataset.sent = "1";
  });
  window.addEventListener("pageshow", function () {
    each("form[data-sent]", function (form) { delete form.dataset.sent; });
  });

  /* After a failed submit the page opens on the list of problems. */
  var problems = document.getElementById("errors");
  if (problems) { problems.setAttribute("tabindex", "-1"); problems.focus(); }
})();
