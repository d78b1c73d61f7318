<%@ page contentType="text/html; charset=UTF-8" import="java.util.List" %>
<!doctype html>
<title>War</title>
<% Integer visits = (Integer) session.getAttribute("visits"); session.setAttribute("visits", visits == null ? 1 : visits + 1); %>
<p>Visit ${sessionScope.visits} at ${pageContext.request.scheme}://${pageContext.request.serverName}, grüße.</p>
<% for (String word : List.of("compiled", "without", "JDK")) { %><b><%= word %></b> <% } %>
