<%@ page import="javax.servlet.http.Cookie" %>
<%= new Cookie("name", "value").getName() %> of an older page
