// Follows what happens: when the proxy says that something has changed, the parts of the
// page that show it are looked at anew. A part in which somebody is writing stays as it
// is, and is said to be old.
"use strict";
(() => {
	const news = document.getElementById("news");
	// Whoever is about to decide must decide about what they see.
	const busy = (part) => part.querySelector("details[open]") || !document.getSelection().isCollapsed && document.getSelection().containsNode(part, true) || part.contains(document.activeElement) && document.activeElement !== document.body ||
		[...part.querySelectorAll("input:not([type=hidden]), textarea")].some((i) => i.type === "checkbox" ? i.checked !== i.defaultChecked : i.value !== i.defaultValue);
	let looking = false, again = false;
	const look = async () => {
		if (looking) { again = true; return; }
		looking = true;
		do {
			again = false;
			try {
				const response = await fetch(location.pathname + location.search, { credentials: "same-origin", headers: { "X-Otrproxy-Look": "1" } });
				if (!response.ok) { news.textContent = "This page is not yours any more. Make a new link with: otrproxy web"; return; }
				const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
				// Whoever listens on this port now must be who made this page.
				const secret = (d) => d.querySelector("input[name=csrf]")?.value;
				if (!secret(fresh) || secret(fresh) !== secret(document)) { news.textContent = "This page is not yours any more. Make a new link with: otrproxy web"; source.close(); return; }
				let old = false;
				for (const part of document.querySelectorAll("[data-part]")) {
					const now = fresh.getElementById(part.id);
					if (!now || now.innerHTML === part.innerHTML) continue;
					if (busy(part)) { old = true; continue; }
					part.replaceWith(document.importNode(now, true));
				}
				const title = fresh.getElementById("decisions-title");
				news.textContent = old ? "Something has changed. Reload the page when you are done." : "";
				document.title = (title && title.classList.contains("urgent") ? "(!) " : "") + fresh.title;
			} catch { news.textContent = "otrproxy does not answer."; }
		} while (again);
		looking = false;
	};
	const source = new EventSource(document.body.dataset.live);
	source.onmessage = look;
	source.onopen = look; // for what happened before
	source.onerror = () => { news.textContent = "otrproxy does not answer; trying again."; };
})();
