# Options that Spark asks of Java 17: $opens. Sourced by bash scripts.

opens=$(printf -- '--add-opens=java.base/%s=ALL-UNNAMED ' java.lang java.lang.invoke java.lang.reflect java.io java.net \
	java.nio java.util java.util.concurrent java.util.concurrent.atomic sun.nio.ch sun.nio.cs sun.security.action \
	sun.util.calendar)
